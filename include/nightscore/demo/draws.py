"""Random numbers by hashing: the same question always has the same answer, in whatever order questions are asked."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Draws:
    """Random numbers that depend on nothing but the seed, the account, a purpose and a time."""

    keys: "Array"

    @classmethod
    def of(cls, ids: "Array", seed: int) -> "Draws":
        """Return the random numbers of these accounts."""
        import numpy as np

        return cls(mix(ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed % 2**63)))

    def bits(self, purpose: str, time: "Array | int" = 0) -> "Array":
        """Return 64 random bits for every account."""
        import numpy as np

        offset = int.from_bytes(purpose.encode()[:8].ljust(8), "little") ^ (len(purpose) << 56)
        times = np.asarray(time, dtype=np.int64).astype(np.uint64) * np.uint64(0xD1342543DE82EF95)
        return mix(self.keys + np.uint64(offset) + times)

    def uniform(self, purpose: str, time: "Array | int" = 0) -> "Array":
        """Return a number in [0, 1) for every account."""
        import numpy as np

        return (self.bits(purpose, time) >> np.uint64(11)) * 2.0**-53

    def normal(self, purpose: str, time: "Array | int" = 0) -> "Array":
        """Return a standard normal number for every account (Box and Muller's transformation)."""
        import numpy as np

        bits = self.bits(purpose, time)
        radius = np.sqrt(-2 * np.log(((bits >> np.uint64(32)) + 1.0) * 2.0**-32))
        angle = (bits & np.uint64(0xFFFFFFFF)) * (2 * np.pi * 2.0**-32)
        return np.asarray(radius * np.cos(angle))


def mix(bits: "Array") -> "Array":
    """Scramble 64-bit numbers: the finishing steps of SplitMix64."""
    import numpy as np

    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(bits ^ (bits >> np.uint64(31)))
