//! A PostgreSQL server for tests: the one at `TEST_DATABASE_URL`, or a temporary one that ends with this process.
//!
//! Each test has its own schema, which the service's role owns. The role of `TEST_DATABASE_URL` must be a superuser.
//! Each run removes the databases and roles of earlier runs.

use std::{
    env,
    io::{self, Write},
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime,
    sync::{mpsc, oneshot},
};
use tokio_postgres::{Client, Config, NoTls, config::Host};

use super::{proxy::Upstream, users::Tenant};

/// The time limit for starting the server.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// The name of the role and of the database of this run.
static NAME: LazyLock<String> = LazyLock::new(|| format!("{PREFIX}{}", process::id()));
/// The prefix of such names in all runs.
const PREFIX: &str = "tenant_tasks_test_";

/// The server of this run; `None` if PostgreSQL is not installed.
static SERVER: LazyLock<Option<Server>> = LazyLock::new(|| {
    #[expect(
        clippy::disallowed_methods,
        reason = "a setting of the tests, not of the service"
    )]
    let url = env::var("TEST_DATABASE_URL").ok();
    let url = match url {
        Some(url) => url,
        None => ThrowAway::start()?.into_url(),
    };
    Some(Server::new(&url))
});

/// The loopback port of a connection pooler in front of the server; `None` for none.
static POOLER_PORT: LazyLock<Option<String>> = LazyLock::new(|| {
    #[expect(
        clippy::disallowed_methods,
        reason = "a setting of the tests, not of the service"
    )]
    env::var("TEST_POOLER_PORT").ok()
});

/// A server and a superuser's connection to it.
struct Server {
    config: Config,
    /// Sends statements to the superuser's connection. Its thread lives as long as the process, unlike the runtimes of
    /// the tests.
    statements: mpsc::UnboundedSender<(String, oneshot::Sender<Result<(), String>>)>,
    schemas: AtomicUsize,
}

/// A schema that belongs to one test.
pub struct Database {
    schema: String,
}

impl Database {
    /// Creates a schema without tables. If there is no server, the process exits with 0, because all its tests need
    /// PostgreSQL.
    pub async fn create() -> Self {
        let server = server();
        let schema = format!("test_{}", server.schemas.fetch_add(1, Ordering::SeqCst));
        server
            .execute(&format!("CREATE SCHEMA {schema} AUTHORIZATION {}", *NAME))
            .await;
        if POOLER_PORT.is_some() {
            // The pooler does not support `options`, so each schema has a role with its search path.
            let role = pooled_role(&schema);
            let name = &*NAME;
            let sql = format!(
                "CREATE ROLE {role} LOGIN PASSWORD '{name}'; GRANT {name} TO {role}; \
                 ALTER ROLE {role} SET search_path = {schema}; ALTER ROLE {role} SET role = {name}"
            );
            server.execute(&sql).await;
        }
        Self { schema }
    }

    /// The value of `DATABASE_URL` for this schema, through a pooler if there is one.
    pub fn url(&self) -> String {
        let Some(port) = &*POOLER_PORT else {
            return self.direct_url();
        };
        let (name, role) = (&*NAME, pooled_role(&self.schema));
        format!("postgres://{role}:{name}@127.0.0.1:{port}/{name}?connect_timeout=2")
    }

    /// Like [`Database::url`], without the pooler.
    pub fn direct_url(&self) -> String {
        self.url_as(&NAME)
    }

    /// The name of the schema.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// Like [`Database::url`], for another role with the same password.
    pub fn url_as(&self, role: &str) -> String {
        let (host, port) = server().address();
        self.url_of(role, &host.replace('/', "%2F"), port)
    }

    /// Like [`Database::url`], through a proxy on this loopback port.
    pub fn url_through(&self, port: u16) -> String {
        self.url_of(&NAME, "127.0.0.1", port)
    }

    fn url_of(&self, role: &str, host: &str, port: u16) -> String {
        let (name, schema) = (&*NAME, &self.schema);
        format!("postgres://{role}:{name}@{host}:{port}/{name}?options=-csearch_path%3D{schema}")
    }

    /// Connects as the service's role, for statements that the service does not send.
    pub async fn connect(&self) -> Client {
        connect(&self.direct_url()).await
    }

    /// Executes a statement in this schema as a superuser.
    pub async fn execute_as_superuser(&self, sql: &str) {
        server()
            .execute(&format!(
                "SET search_path = {}; {sql}; RESET search_path",
                self.schema
            ))
            .await;
    }
}

/// Whether several clients share a session of the server.
pub fn are_sessions_shared() -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "a setting of the tests, not of the service"
    )]
    env::var("TEST_POOLER_MODE").is_ok_and(|mode| mode != "session")
}

fn pooled_role(schema: &str) -> String {
    format!("{}_{schema}", *NAME)
}

/// Connects without TLS.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .expect("a connection");
    tokio::spawn(connection);
    client
}

/// The SQL that begins a transaction in which only the tenant's rows are visible.
pub fn begin(tenant: Tenant) -> String {
    format!("BEGIN; SET LOCAL app.tenant = '{}'", tenant.id)
}

/// The role that `Database::url` connects as.
pub fn role() -> &'static str {
    &NAME
}

/// The address of the server, for a proxy.
pub fn upstream() -> Upstream {
    let (host, port) = server().address();
    if host.starts_with('/') {
        Upstream::Socket(format!("{host}/.s.PGSQL.{port}").into())
    } else {
        Upstream::Address(host, port)
    }
}

fn server() -> &'static Server {
    SERVER.as_ref().unwrap_or_else(|| skip_all())
}

fn skip_all() -> ! {
    static ONCE: Mutex<()> = Mutex::new(());
    let _lock = ONCE.lock();
    say_left_out(
        "the tests with PostgreSQL. TEST_DATABASE_URL is not set, and initdb was not found in PATH or /usr/lib/postgresql",
    );
    process::exit(0)
}

/// Reports skipped tests on standard error. It bypasses the test harness, which shows output only for failed tests.
///
/// # Panics
///
/// If `TESTS_MUST_BE_COMPLETE` is set.
pub fn say_left_out(what: &str) {
    assert!(
        env::var_os("TESTS_MUST_BE_COMPLETE").is_none(),
        "skipped: {what}"
    );
    let written = io::stderr().write_all(format!("\nskipped: {what}.\n").as_bytes());
    written.expect("standard error");
}

impl Server {
    fn new(url: &str) -> Self {
        let config: Config = url
            .parse()
            .expect("TEST_DATABASE_URL must be a PostgreSQL URL");
        let (statements, mut received) = mpsc::unbounded_channel::<(String, oneshot::Sender<_>)>();
        let admin = config.clone();
        thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let client = set_up(admin).await;
                while let Some((sql, done)) = received.recv().await {
                    // The test that sent the statement may have ended.
                    let _ = done.send(
                        client
                            .batch_execute(&sql)
                            .await
                            .map_err(|error| format!("{error:?}")),
                    );
                }
            });
        });
        Self {
            config,
            statements,
            schemas: AtomicUsize::new(0),
        }
    }

    fn address(&self) -> (String, u16) {
        let host = match self.config.get_hosts() {
            [Host::Tcp(name), ..] => name.clone(),
            [Host::Unix(directory), ..] => {
                directory.to_str().expect("the path is UTF-8").to_owned()
            }
            [] => panic!("TEST_DATABASE_URL must name a host"),
        };
        (
            host,
            self.config.get_ports().first().copied().unwrap_or(5432),
        )
    }

    async fn execute(&self, sql: &str) {
        let (done, result) = oneshot::channel();
        self.statements
            .send((sql.to_owned(), done))
            .expect("the thread is running");
        result
            .await
            .expect("the thread is running")
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

/// Creates the role and the database of this run and removes those of earlier runs.
async fn set_up(mut config: Config) -> Client {
    let connect = async |config: &Config| {
        let (client, connection) = config
            .connect(NoTls)
            .await
            .expect("a connection as superuser");
        tokio::spawn(connection);
        client
    };
    let client = connect(&config).await;
    let unused = "SELECT datname FROM pg_database WHERE starts_with(datname, $1) AND NOT EXISTS \
                (SELECT FROM pg_stat_activity WHERE pg_stat_activity.datname = pg_database.datname)";
    for row in client
        .query(unused, &[&PREFIX])
        .await
        .expect("a list of databases")
    {
        let name: String = row.get(0);
        // A concurrent run may have removed it already.
        let _ = client
            .batch_execute(&format!("DROP DATABASE IF EXISTS {name}"))
            .await;
        let roles = client
            .query(
                "SELECT rolname FROM pg_roles WHERE starts_with(rolname, $1)",
                &[&name],
            )
            .await;
        for role in roles.expect("a list of roles") {
            let _ = client
                .batch_execute(&format!("DROP ROLE IF EXISTS {}", role.get::<_, String>(0)))
                .await;
        }
    }
    let name = &*NAME;
    for sql in [
        format!("CREATE ROLE {name} LOGIN PASSWORD '{name}' NOSUPERUSER NOBYPASSRLS"),
        format!("CREATE DATABASE {name} OWNER {name}"),
    ] {
        client
            .batch_execute(&sql)
            .await
            .expect("the role of TEST_DATABASE_URL can create roles and databases");
    }
    connect(config.dbname(name)).await
}

/// A temporary server. Its data and its socket are in a temporary folder.
pub struct ThrowAway {
    folder: PathBuf,
    programs: PathBuf,
    port: String,
    keeper: Child,
}

impl ThrowAway {
    /// Starts a server. Returns `None` if PostgreSQL is not installed.
    pub fn start() -> Option<Self> {
        Self::start_with(|_| vec!["listen_addresses=".to_owned()])
    }

    /// Like [`ThrowAway::start`]. `prepare` can add files to the folder and returns the server's settings.
    pub fn start_with(prepare: impl FnOnce(&Path) -> Vec<String>) -> Option<Self> {
        let programs = programs()?;
        let folder = tempfile::Builder::new()
            .prefix("postgres-")
            .tempdir()
            .expect("a folder")
            .keep();
        // The keeper restarts the server after a crash. When this process ends, for any reason, the standard input of
        // the keeper is closed. It then stops the server and removes the folder.
        let script = r#"
            trap '' INT TERM
            "$1/initdb" --pgdata="$2/data" --no-sync --auth=scram-sha-256 --username=postgres \
                --pwfile="$2/password" >"$2/log" 2>&1 &&
            {
                until test -e "$2/stopped"; do
                    "$1/postgres" -D "$2/data" -c unix_socket_directories="$2" -c fsync=off -c max_connections=400 \
                        $3 >>"$2/log" 2>&1
                done &
            }
            read -r _
            touch "$2/stopped"
            kill -QUIT "$(head -n 1 "$2/data/postmaster.pid")"
            wait
            rm -rf "$2"
        "#;
        std::fs::write(folder.join("password"), "postgres").expect("a file");
        let mut command = Command::new("sh");
        let settings = prepare(&folder);
        let port = settings
            .iter()
            .find_map(|setting| setting.strip_prefix("port="))
            .unwrap_or("5432")
            .to_owned();
        let settings = format!("-c {}", settings.join(" -c "));
        command
            .args(["-c", script, "sh"])
            .arg(&programs)
            .arg(&folder)
            .arg(settings)
            .current_dir(&folder);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        if let Some((user, group)) = unprivileged_user() {
            let files = std::fs::read_dir(&folder)
                .expect("a folder")
                .flatten()
                .map(|file| file.path());
            for path in files.chain([folder.clone()]) {
                chown(path, Some(user), Some(group))
                    .expect("the owner of the folder can be changed");
            }
            command.uid(user).gid(group);
        }
        let keeper = command.spawn().expect("sh");
        let server = Self {
            folder,
            programs,
            port,
            keeper,
        };
        server.await_start();
        Some(server)
    }

    /// Stops the server like `pg_ctl stop -m immediate`: without closing connections and without a checkpoint. The
    /// keeper restarts it, and it recovers.
    pub fn crash(&self) {
        let pid = std::fs::read_to_string(self.folder.join("data/postmaster.pid"))
            .expect("the server is running");
        let pid = pid.lines().next().expect("a process id");
        assert!(
            Command::new("kill")
                .args(["-QUIT", pid])
                .status()
                .expect("kill")
                .success()
        );
    }

    fn await_start(&self) {
        #[expect(
            clippy::disallowed_methods,
            reason = "starting a server takes real time"
        )]
        let started = Instant::now();
        let is_ready = || {
            let mut pg_isready = Command::new(self.programs.join("pg_isready"));
            pg_isready
                .arg("--quiet")
                .arg("--host")
                .arg(&self.folder)
                .args(["--port", &self.port]);
            pg_isready.status().is_ok_and(|status| status.success())
        };
        while !is_ready() {
            let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(
                started.elapsed() < START_TIMEOUT,
                "PostgreSQL did not start: {}",
                log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns the URL of a superuser and keeps the server running until the process ends.
    fn into_url(mut self) -> String {
        // The pipe stays open until the process ends.
        std::mem::forget(self.keeper.stdin.take());
        self.url("postgres", "postgres")
    }

    /// The URL for a role whose password equals its name.
    pub fn url(&self, role: &str, database: &str) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://{role}:{role}@{folder}:{}/{database}", self.port)
    }
}

/// Finds the folder of PostgreSQL's server programs, which is not in `PATH` on Debian.
fn programs() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut versions: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    versions.sort_by_key(|folder| {
        let version = folder
            .parent()
            .and_then(Path::file_name)
            .and_then(|name| name.to_str());
        version.and_then(|version| version.parse::<u32>().ok())
    });
    // PATH may contain links to only some of the programs.
    let initdb = |folder: PathBuf| folder.join("initdb").canonicalize().ok();
    let initdb = env::split_paths(&path)
        .chain(versions.into_iter().rev())
        .find_map(initdb)?;
    initdb.parent().map(Path::to_owned)
}

/// PostgreSQL does not run as root. As root, returns the IDs of the user `postgres` or `nobody`.
fn unprivileged_user() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().ok()?;
        String::from_utf8(output.stdout)
            .ok()?
            .trim()
            .parse::<u32>()
            .ok()
    };
    if id(&["-u"])? != 0 {
        return None;
    }
    ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| Some((id(&["-u", name])?, id(&["-g", name])?)))
}
