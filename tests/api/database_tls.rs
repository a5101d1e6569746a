//! TLS to the database, as `sslmode` and `sslrootcert` ask for it.

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tenant_tasks::{
    config::Config,
    tasks::store::{StoreError, Tasks},
};

use crate::support::{
    app::settings,
    postgres::{Database, ThrowAway, connect, say_left_out},
};

/// A certificate authority's certificate in one file, and in two others a certificate for `localhost` it has signed.
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

/// The store, with one connection.
async fn reach(url: &str) -> Result<Tasks, StoreError> {
    let settings = settings("http://127.0.0.1:9", &[("DATABASE_URL", url)]);
    let tasks = Tasks::open(&Config::parse(&settings).unwrap().store)
        .await
        .expect("a good role");
    tasks.readiness().await.map(|()| tasks)
}

#[tokio::test]
async fn a_server_is_trusted_as_far_as_the_url_says() {
    // Ends the process where there is no PostgreSQL.
    drop(Database::create().await);
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let ours = tempfile::tempdir().unwrap();
    write_certificates(ours.path());
    let server = ThrowAway::start_with(|folder| {
        for file in ["server.pem", "server.key"] {
            fs::copy(ours.path().join(file), folder.join(file)).unwrap();
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

    let root = format!("&sslrootcert={}", ours.path().join("root.pem").display());
    let (none, root) = ("", root.as_str());
    for (host, mode, roots, is_encrypted) in [
        ("localhost", "disable", none, Some(false)),
        ("localhost", "prefer", none, Some(true)),
        ("127.0.0.1", "require", none, Some(true)),
        ("localhost", "require", root, Some(true)),
        ("localhost", "verify-ca", root, Some(true)),
        ("127.0.0.1", "verify-ca", root, Some(true)),
        ("localhost", "verify-full", root, Some(true)),
        // Another name than the certificate's.
        ("127.0.0.1", "verify-full", root, None),
        // Signed by nobody whom this system trusts.
        ("localhost", "verify-ca", none, None),
        ("localhost", "verify-full", none, None),
    ] {
        let name = format!("{host}, {mode}{roots}");
        let application = format!("{host}-{mode}-{}", roots.len());
        let url = format!(
            "postgres://tasks:tasks@{host}:{port}/tasks?sslmode={mode}{roots}&application_name={application}"
        );
        let reached = reach(&url).await;
        assert_eq!(
            reached.is_ok(),
            is_encrypted.is_some(),
            "{name}: {reached:?}"
        );
        let sql = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = $1";
        let connections = client.query(sql, &[&application]).await.unwrap();
        let found = connections
            .first()
            .map(|connection| connection.get::<_, bool>(0));
        assert_eq!(found, is_encrypted, "{name}");
    }
    // Without a mode, to this machine: anybody's will do, unless there is a file to go by.
    reach(&format!("postgres://tasks:tasks@127.0.0.1:{port}/tasks"))
        .await
        .unwrap();
    let file = root.trim_start_matches('&');
    reach(&format!(
        "postgres://tasks:tasks@localhost:{port}/tasks?{file}"
    ))
    .await
    .unwrap();
    reach(&format!(
        "postgres://tasks:tasks@127.0.0.1:{port}/tasks?{file}"
    ))
    .await
    .unwrap_err();
}
