"""Signatures of versions, as the OpenSSF's model-signing makes them: over the manifest and every file that it names.

    registry/models/<name>/versions/<n>/signatures/<id>.sigstore.json    created once each

A version can have several, and be signed long after it was registered. Where the settings name a folder of trusted
signers, no version is loaded without a valid signature by one of them; the check comes before the audit.
"""

import contextlib
import io
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightscore.errors import ConfigurationError, listed, shorten
from nightscore.registry.libraries import require_installed

FOLDER = "signatures/"
SUFFIX = ".sigstore.json"
LARGEST_SIGNATURE = 2**20


class SignatureRequiredError(ConfigurationError):
    """A version has no valid signature by a trusted signer; nothing of it was run."""


class SignerError(ConfigurationError):
    """A signer's key or identity cannot be used."""


@dataclass(frozen=True)
class Signer:
    """Who is trusted: the owner of a key, or an identity that an issuer vouches for.

    Attributes:
        name: the file's, without its ending.
        public_key: PEM file of an elliptic curve's public key.
        identity: what a keyless signature's certificate is made out to: an address, a workflow.
        issuer: who vouches for the identity.
        trust_config: Sigstore's trust configuration as a file, so that nothing need be downloaded.
    """

    name: str
    public_key: Path | None = None
    identity: str | None = None
    issuer: str | None = None
    trust_config: Path | None = None


def read_signers(folder: Path) -> tuple[Signer, ...]:
    """Return the signers of a folder: every `*.pem` is a public key, every `*.json` an identity.

    An identity has `identity`, `issuer` and `trust_config`, a file beside it.

    Raises:
        SignerError: there is no such folder, nobody in it, or a file cannot be read.
    """
    if not folder.is_dir():
        raise SignerError(f"NIGHTSCORE_TRUSTED_SIGNERS names {folder}, which is no folder.")
    signers = [Signer(path.stem, public_key=path) for path in sorted(folder.glob("*.pem"))]
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text())
            trust = path.with_name(content["trust_config"])
            signers.append(
                Signer(path.stem, identity=content["identity"], issuer=content["issuer"], trust_config=trust)
            )
        except (ValueError, KeyError, TypeError) as error:
            raise SignerError(f"{path} is not a signer: it needs identity, issuer and trust_config.") from error
    if not signers:
        raise SignerError(f"NIGHTSCORE_TRUSTED_SIGNERS names {folder}, which holds no *.pem and no *.json.")
    return tuple(signers)


def sign_with_key(what: str, files: Mapping[str, bytes], private_key: Path, password: str | None = None) -> bytes:
    """Return a signature of files by an elliptic curve's private key, as a Sigstore bundle.

    Raises:
        SignerError: the key cannot be used.
    """
    require_installed(what, ("model-signing",), "signing")
    from model_signing import signing

    if not private_key.is_file():
        raise SignerError(f"There is no key {private_key}.")
    # The library hands the password on as it is, to one that takes bytes.
    secret: Any = None if password is None else password.encode()
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=private_key, password=secret)
    except (ValueError, TypeError) as error:
        raise SignerError(f"{private_key} cannot be used as a private key: {shorten(error)}") from error
    return _signed(files, config)


def sign_keyless(what: str, files: Mapping[str, bytes], trust_config: Path | None = None) -> bytes:
    """Return a signature of files by the identity that this process has where it runs, as in a CI workflow.

    Raises:
        SignerError: there is no such identity here, or Sigstore cannot be reached.
    """
    require_installed(what, ("model-signing",), "signing")
    from model_signing import signing

    try:
        config = signing.Config().use_sigstore_signer(use_ambient_credentials=True, trust_config=trust_config)
        return _signed(files, config)
    except Exception as error:
        # Sigstore, its servers and the identity's provider: each has errors of its own.
        raise SignerError(f"{what} cannot be signed without a key here: {shorten(error, 400)}") from error


def require_signature(
    label: str, files: Mapping[str, bytes], signatures: Sequence[bytes], signers: Sequence[Signer]
) -> str:
    """Check that one of the signatures is valid and by one of the signers; return the signer's name.

    Args:
        label: the version, `name/version`.
        files: name → bytes of the manifest and every file that it names.
        signatures: Sigstore bundles.
        signers: who is trusted.

    Raises:
        SignatureRequiredError: none is.
    """
    require_installed(label, ("model-signing",), "signing")
    reasons = []
    with _folder_of(files) as folder:
        for signature in signatures:
            (folder.parent / "signature").write_bytes(signature)
            for signer in signers:
                fault = _fault(folder, folder.parent / "signature", signer)
                if fault is None:
                    return signer.name
                reasons.append(f"{signer.name}: {fault}")
    found = f"None of its {len(signatures)} is: {listed(reasons, most=4)}." if signatures else "It has none."
    raise SignatureRequiredError(
        f"{label} needs a valid signature by one of {listed(signer.name for signer in signers)}. {found} It was not "
        f"loaded. Sign it: `nightscore models sign {label.replace('/', '@')} --key KEY.pem`."
    )


def _fault(folder: Path, signature: Path, signer: Signer) -> str | None:
    """Return why a signature is not this signer's over these files, or None."""
    from model_signing import verifying

    config: Any = verifying.Config()
    try:
        # The library prints warnings and speaks of wrong keys on standard output.
        with contextlib.redirect_stdout(io.StringIO()):
            if signer.public_key is not None:
                config.use_elliptic_key_verifier(public_key=signer.public_key)
            else:
                config.use_sigstore_verifier(
                    identity=signer.identity, oidc_issuer=signer.issuer, trust_config=signer.trust_config
                )
            config.verify(folder, signature)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong with what a stranger wrote, it is not valid
        # Of other contents, the library says the digests at length, and nobody reads them.
        named = re.findall(r"mismatch for '([^']+)'", str(error).replace("\\", ""))
        return f"it is of another {listed(named)}" if named else shorten(str(error) or type(error).__name__, 160)
    return None


def _signed(files: Mapping[str, bytes], config: Any) -> bytes:
    with _folder_of(files) as folder:
        path = folder.parent / "signature"
        config.sign(folder, path)
        return path.read_bytes()


@contextlib.contextmanager
def _folder_of(files: Mapping[str, bytes]) -> Iterator[Path]:
    """Yield a folder with these files and nothing else."""
    with tempfile.TemporaryDirectory(prefix="nightscore-signing-") as parent:
        folder = Path(parent) / "version"
        folder.mkdir()
        for name, data in files.items():
            (folder / Path(name).name).write_bytes(data)
        yield folder
