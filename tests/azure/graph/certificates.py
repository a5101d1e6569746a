"""The certificate of the mock: a throw-away certificate authority that can only sign for the hosts of the mock."""

import pathlib
import subprocess

from . import HOSTS


def create_certificates(folder):
    """Writes ca.pem, leaf.pem and leaf.key. Deletes the key of the certificate authority after use."""
    folder = pathlib.Path(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "extensions").write_text(
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        f"subjectAltName={','.join('DNS:' + host for host in HOSTS)}\n"
    )
    permitted = ",".join("permitted;DNS:" + host for host in HOSTS)
    for command in (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 825 -subj /CN=mock-graph-ca"
        " -keyout ca.key -out ca.pem -addext basicConstraints=critical,CA:TRUE,pathlen:0"
        f" -addext keyUsage=critical,keyCertSign,cRLSign -addext nameConstraints=critical,{permitted}",
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=graph.microsoft.com"
        " -keyout leaf.key -out leaf.csr",
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 825 -extfile extensions -out leaf.pem",
    ):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    for name in ("ca.key", "ca.srl", "leaf.csr", "extensions"):
        (folder / name).unlink(missing_ok=True)
