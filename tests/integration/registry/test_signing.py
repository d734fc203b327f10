"""Signed versions: what is signed by whom loads, and nothing else does where the settings ask for it."""

import json
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pyarrow import parquet
from sklearn.linear_model import LogisticRegression
from skops import io as skops_io

from nightscore.registry.manifest import digest
from nightscore.registry.signing import (
    SignatureRequiredError,
    SignerError,
    read_signers,
    sign_keyless,
    sign_with_key,
)
from nightscore.registry.store import DigestError, Registry
from nightscore.registry.verification import verify
from nightscore.run import build_services

FRAME = pd.DataFrame({"age": np.linspace(18, 90, 100), "limit_bal": np.linspace(0, 1, 100) ** 2})


def new_key(folder: Path, name: str, password: str | None = None) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    hidden = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    private = folder / f"{name}.key"
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden))
    (folder / f"{name}.pem").write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private


@pytest.fixture
def desk(settings, tmp_path):
    """A registry that trusts the keys of a folder, and one that asks for no signature."""
    services = build_services(settings)
    trusted = tmp_path / "trusted"
    trusted.mkdir()

    class Desk:
        name = f"m{uuid.uuid4().hex[:12]}"
        plain = services.registry
        strict = Registry(services.bucket, signers=trusted)
        folder, signers = tmp_path, trusted

        def register(self):
            file, sample = tmp_path / "model.skops", tmp_path / "sample.parquet"
            skops_io.dump(LogisticRegression().fit(FRAME, FRAME.age > 40), file)
            parquet.write_table(pa.Table.from_pandas(FRAME, preserve_index=False), sample)
            return self.plain.register(self.name, file, sample, alias="champion")

        def sign(self, version, key, password=None):
            files = self.plain.signed_files(version)
            return self.plain.add_signature(version, sign_with_key(version.label, files, key, password))

        def overwrite(self, file, data):
            path = f"registry/models/{self.name}/versions/1/{file}"
            self.plain.bucket._bucket.blob(path).upload_from_string(data)

    return Desk()


def test_what_a_trusted_signer_has_signed_is_loaded(desk):
    version = desk.register()
    key = new_key(desk.signers, "risk", password="secret")
    new_key(desk.signers, "audit")
    uri = desk.sign(version, key, "secret")
    assert uri.startswith(f"gs://{desk.plain.bucket.name}/registry/models/{desk.name}/versions/1/signatures/")
    assert desk.strict.load(version).label == f"{desk.name}/1"
    assert desk.strict.require_signed(version) == "risk"
    statement = json.loads(desk.plain.signatures(version)[0])
    assert statement["dsseEnvelope"]["payloadType"] == "application/vnd.in-toto+json"


def test_what_nobody_has_signed_is_not_loaded(desk):
    version = desk.register()
    new_key(desk.signers, "risk")
    with pytest.raises(SignatureRequiredError) as caught:
        desk.strict.load(version)
    assert str(caught.value) == (
        f"{desk.name}/1 needs a valid signature by one of risk. It has none. It was not loaded. Sign it: "
        f"`nightscore models sign {desk.name}@1 --key KEY.pem`."
    )
    assert desk.plain.load(version).label == f"{desk.name}/1"


def test_a_stranger_s_signature_is_none(desk):
    version = desk.register()
    new_key(desk.signers, "risk")
    desk.sign(version, new_key(desk.folder, "stranger"))
    with pytest.raises(SignatureRequiredError, match=r"None of its 1 is: risk: Key mismatch"):
        desk.strict.load(version)


def test_a_signature_of_another_version_is_none(desk):
    first = desk.register()
    second = desk.register()
    key = new_key(desk.signers, "risk")
    desk.sign(first, key)
    desk.plain.add_signature(second, desk.plain.signatures(first)[0])
    with pytest.raises(SignatureRequiredError, match=r"risk: it is of another manifest\.json, model\.skops\."):
        desk.strict.load(second)


def test_noise_for_a_signature_is_none(desk):
    version = desk.register()
    new_key(desk.signers, "risk")
    for noise in (b"", b"\xff\x00", b"{}", b'{"dsseEnvelope": 1}', b"[" * 100_000):
        desk.plain.add_signature(version, noise)
    with pytest.raises(SignatureRequiredError, match="None of its 5 is: ") as caught:
        desk.strict.load(version)
    assert len(str(caught.value)) < 1200


def test_a_forged_manifest_is_caught_by_the_signature_where_no_alias_pins_it(desk):
    version = desk.register()
    desk.sign(version, new_key(desk.signers, "risk"))
    forged = version.manifest.model_copy(update={"description": "harmless"})
    desk.overwrite("manifest.json", forged.to_bytes())
    found = desk.strict.load_manifest(desk.name, 1, digest(forged.to_bytes()))
    with pytest.raises(SignatureRequiredError, match=r"risk: it is of another manifest\.json\."):
        desk.strict.load(found)
    with pytest.raises(DigestError):
        desk.strict.load(version)


def test_verification_tells_who_has_signed_and_what_is_wrong(desk):
    version = desk.register()
    new_key(desk.signers, "audit")
    key = new_key(desk.signers, "risk")
    [found, alias] = verify(desk.strict, desk.name)
    assert found.faults[0].startswith(f"{desk.name}/1 needs a valid signature by one of audit, risk. It has none.")
    desk.sign(version, key)
    [found, alias] = verify(desk.strict, desk.name)
    assert (found.label, found.files, found.faults, found.notes) == (f"{desk.name}/1", 3, (), ("ok, signed by risk",))
    assert (alias.label, alias.notes) == (f"{desk.name}@champion", ("points to 1",))


def test_signers_are_read_from_a_folder(tmp_path):
    with pytest.raises(SignerError, match="which is no folder"):
        read_signers(tmp_path / "gone")
    with pytest.raises(SignerError, match=r"holds no \*\.pem and no \*\.json"):
        read_signers(tmp_path)
    new_key(tmp_path, "risk")
    identity = {"identity": "ci@example.com", "issuer": "https://issuer.example.com", "trust_config": "trust"}
    (tmp_path / "ci.json").write_text(json.dumps(identity))
    (tmp_path / "trust").write_text("{}")
    key, keyless = read_signers(tmp_path)
    assert (key.name, key.public_key) == ("risk", tmp_path / "risk.pem")
    assert (keyless.name, keyless.identity, keyless.trust_config) == ("ci", "ci@example.com", tmp_path / "trust")
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(SignerError, match=r"bad\.json is not a signer: it needs identity, issuer and trust_config"):
        read_signers(tmp_path)


def test_a_key_that_cannot_be_used_and_an_identity_that_is_not_there(desk, tmp_path):
    version = desk.register()
    files = desk.plain.signed_files(version)
    with pytest.raises(SignerError, match="There is no key"):
        sign_with_key(version.label, files, tmp_path / "gone.pem")
    key = new_key(tmp_path, "locked", password="secret")
    for password in (None, "wrong"):
        with pytest.raises(SignerError, match=r"locked\.key cannot be used as a private key"):
            sign_with_key(version.label, files, key, password)
    trust = tmp_path / "trust.json"
    trust.write_text("{}")
    with pytest.raises(SignerError, match="cannot be signed without a key here"):
        sign_keyless(version.label, files, trust)


def test_a_plan_says_that_a_signature_is_missing_before_anything_is_frozen(bench, tmp_path):
    from dataclasses import replace

    from nightscore.assessment import assess

    table = pa.Table.from_pandas(FRAME, preserve_index=False)
    days = pa.array([bench.day] * len(FRAME), pa.date32())
    columns = {
        "id": range(len(FRAME)),
        "snapshot_date": days,
        **dict(zip(table.column_names, table.columns, strict=True)),
    }
    bench.write("features", pa.table(columns))
    label = FRAME.age > 40
    champion = bench.register(LogisticRegression().fit(FRAME, label), table)
    bench.register(LogisticRegression(C=0.1).fit(FRAME, label), table, alias="challenger")
    trusted = tmp_path / "signers"
    trusted.mkdir()
    key = new_key(trusted, "risk")
    strict = replace(bench.services, registry=Registry(bench.services.bucket, signers=trusted))
    spec = bench.spec(model={"name": bench.name, "challengers": ["challenger"]})

    found = assess(spec, bench.day, strict.warehouse, strict.registry)
    [reason] = found.reasons
    assert isinstance(reason, SignatureRequiredError)
    files = strict.registry.signed_files(champion)
    strict.registry.add_signature(champion, sign_with_key(champion.label, files, key))
    found = assess(spec, bench.day, strict.warehouse, strict.registry)
    assert found.reasons == ()
    assert found.challengers == {}
    assert f"{bench.name}/2 needs a valid signature" in found.left_out[f"{bench.name}@challenger"]
