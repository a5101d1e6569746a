//! TLS to the database: `sslmode` and `sslrootcert`.

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tenant_tasks::{
    config::Config,
    tasks::{StoreError, store::Tasks},
};

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

#[tokio::test]
async fn server_certificate_is_verified_as_sslmode_requires() {
    // Ends the process if there is no PostgreSQL server to test with.
    drop(Database::create().await);
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let certificates = tempfile::tempdir().unwrap();
    write_certificates(certificates.path());
    let server = ThrowAway::start_with(|folder| {
        for file in ["server.pem", "server.key"] {
            fs::copy(certificates.path().join(file), folder.join(file)).unwrap();
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
        return say_left_out("TLS to the database: PostgreSQL's programs are not on this machine");
    };
    let client = connect(&server.url("postgres", "postgres")).await;
    client
        .batch_execute("CREATE ROLE tasks LOGIN PASSWORD 'tasks'")
        .await
        .unwrap();
    client
        .batch_execute("CREATE DATABASE tasks OWNER tasks")
        .await
        .unwrap();

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
