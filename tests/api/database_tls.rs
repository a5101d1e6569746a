//! TLS to the database: `sslmode` and `sslrootcert`.

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use tenant_tasks::{
    config::Config,
    tasks::{StoreError, store::Tasks},
};

use tokio_postgres::Client;

use crate::support::{
    app::settings,
    postgres::{Database, ThrowAway, connect, say_left_out},
};

/// Writes the certificate of a certificate authority, and a key and certificate for `localhost` signed by it.
fn write_certificates(folder: &Path) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&authority_key).unwrap();
    fs::write(folder.join("root.pem"), certificate.pem()).unwrap();

    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = server
        .signed_by(&key, &Issuer::new(authority, authority_key))
        .unwrap();
    fs::write(folder.join("server.pem"), certificate.pem()).unwrap();
    fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
    fs::set_permissions(folder.join("server.key"), Permissions::from_mode(0o600)).unwrap();
}

/// Opens the store and one connection.
async fn open(url: &str) -> Result<Tasks, StoreError> {
    let settings = settings("http://127.0.0.1:9", &[("DATABASE_URL", url)]);
    let tasks = Tasks::open(&Config::parse(&settings).unwrap().store)
        .await
        .expect("the database accepts the role");
    tasks.readiness().await.map(|()| tasks)
}

/// Starts a server with `server.pem` and `server.key`. Returns it, a superuser's connection and its port.
async fn start_with_tls(certificates: &Path) -> Option<(ThrowAway, Client, u16)> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let server = ThrowAway::start_with(|folder| {
        for file in ["server.pem", "server.key"] {
            fs::copy(certificates.join(file), folder.join(file)).unwrap();
        }
        let file = |name: &str| folder.join(name).display().to_string();
        vec![
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", file("server.pem")),
            format!("ssl_key_file={}", file("server.key")),
        ]
    });
    let Some(server) = server else {
        say_left_out("TLS to the database: PostgreSQL's programs are not on this machine");
        return None;
    };
    let client = connect(&server.url("postgres", "postgres")).await;
    for sql in [
        "CREATE ROLE tasks LOGIN PASSWORD 'tasks'",
        "CREATE DATABASE tasks OWNER tasks",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    Some((server, client, port))
}

/// Writes a self-signed certificate for the server, which is its own root.
fn write_self_signed(folder: &Path, names: Vec<String>, is_ca: bool) {
    let mut certificate = CertificateParams::new(names).unwrap();
    if is_ca {
        certificate.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "localhost");
    certificate.distinguished_name = name;
    let key = KeyPair::generate().unwrap();
    let certificate = certificate.self_signed(&key).unwrap();
    for file in ["root.pem", "server.pem"] {
        fs::write(folder.join(file), certificate.pem()).unwrap();
    }
    fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
    fs::set_permissions(folder.join("server.key"), Permissions::from_mode(0o600)).unwrap();
}

/// Writes `root.pem`, `server.pem` and `server.key` to a folder.
type WriteFiles = fn(&Path);

#[tokio::test]
async fn certificate_problems_are_explained() {
    drop(Database::create().await);
    let cases: [(WriteFiles, &str); 4] = [
        (
            |folder| write_self_signed(folder, vec!["localhost".to_owned()], true),
            "is the certificate of an authority",
        ),
        (
            |folder| write_self_signed(folder, vec![], false),
            "a name in the CN alone does not count",
        ),
        (
            |folder| write_self_signed(folder, vec!["db.example".to_owned()], false),
            "is for another name",
        ),
        (write_version_1, "has version 1"),
    ];
    for (write, explanation) in cases {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path());
        let Some((_server, _client, port)) = start_with_tls(folder.path()).await else {
            return;
        };
        let root = folder.path().join("root.pem");
        let url = format!(
            "postgres://tasks:tasks@localhost:{port}/tasks?sslmode=verify-full&sslrootcert={}",
            root.display()
        );
        let text = explain(&open(&url).await.map(drop).unwrap_err());
        assert!(text.contains(explanation), "{text}");
    }
}

/// Certificates of version 1 have no extensions. rcgen cannot write them.
fn write_version_1(folder: &Path) {
    write_self_signed(folder, vec!["localhost".to_owned()], true);
    let script = "
        openssl req -new -key server.key -subj /CN=localhost -out server.csr
        openssl x509 -req -in server.csr -CA root.pem -CAkey server.key -days 1 -out server.pem";
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(folder);
    let status = command.stderr(Stdio::null()).status().unwrap();
    assert!(status.success());
}

/// The error with its causes.
fn explain(error: &StoreError) -> String {
    let mut texts = vec![error.to_string()];
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        texts.push(error.to_string());
        source = error.source();
    }
    texts.join(": ")
}

#[tokio::test]
async fn server_certificate_is_verified_as_sslmode_requires() {
    // Ends the process if there is no PostgreSQL server to test with.
    drop(Database::create().await);
    let certificates = tempfile::tempdir().unwrap();
    write_certificates(certificates.path());
    let Some((_server, client, port)) = start_with_tls(certificates.path()).await else {
        return;
    };
    let root = format!(
        "&sslrootcert={}",
        certificates.path().join("root.pem").display()
    );
    let (no_root, root) = ("", root.as_str());
    for (host, mode, root_option, is_encrypted) in [
        ("localhost", "disable", no_root, Some(false)),
        ("localhost", "require", root, Some(true)),
        ("localhost", "verify-ca", root, Some(true)),
        ("localhost", "verify-full", root, Some(true)),
        // The host name does not match the certificate.
        ("127.0.0.1", "require", root, None),
        ("127.0.0.1", "verify-ca", root, None),
        ("127.0.0.1", "verify-full", root, None),
        // The system does not trust the certificate authority.
        ("localhost", "require", no_root, None),
        ("localhost", "verify-ca", no_root, None),
        ("localhost", "verify-full", no_root, None),
    ] {
        let name = format!("{host}, {mode}{root_option}");
        let application = format!("{host}-{mode}-{}", root_option.len());
        let url = format!(
            "postgres://tasks:tasks@{host}:{port}/tasks?sslmode={mode}{root_option}&application_name={application}"
        );
        let result = open(&url).await;
        let error = result.as_ref().err();
        assert_eq!(error.is_none(), is_encrypted.is_some(), "{name}: {error:?}");
        if let Some(error) = error.filter(|_| root_option == no_root) {
            let text = explain(error);
            assert!(text.contains("by an unknown authority"), "{text}");
        }
        let sql = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = $1";
        let connections = client.query(sql, &[&application]).await.unwrap();
        let found = connections
            .first()
            .map(|connection| connection.get::<_, bool>(0));
        assert_eq!(found, is_encrypted, "{name}");
    }
    // Without `sslmode`, the connection to a local server does not use TLS, unless `sslrootcert` is set.
    let application = "application_name=local";
    let local = open(&format!(
        "postgres://tasks:tasks@127.0.0.1:{port}/tasks?{application}"
    ))
    .await;
    assert!(local.is_ok());
    let sql = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'local'";
    let connection = client.query_one(sql, &[]).await.unwrap();
    assert!(!connection.get::<_, bool>(0));
    let file = root.trim_start_matches('&');
    for (host, is_verified) in [("localhost", true), ("127.0.0.1", false)] {
        let url = format!("postgres://tasks:tasks@{host}:{port}/tasks?{file}");
        assert_eq!(open(&url).await.is_ok(), is_verified, "{host}");
    }
}
