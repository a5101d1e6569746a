//! A real PostgreSQL for tests: the server at `TEST_DATABASE_URL`, or one made for this process and gone with it.
//!
//! Each test has a schema of its own, with the service's role as its owner. `TEST_DATABASE_URL` must let
//! us create databases and roles; what a run leaves there, the next one removes.

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

/// How long the server may take to start.
const PATIENCE: Duration = Duration::from_mins(1);

/// The role and the database of this run, and what every such name begins with.
static NAME: LazyLock<String> = LazyLock::new(|| format!("{PREFIX}{}", process::id()));
const PREFIX: &str = "tenant_tasks_test_";

/// The server of this run, if one can be had.
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

/// A server, seen by whoever may make databases and roles there.
struct Server {
    config: Config,
    /// Statements for the one connection that lives as long as the process; runtimes of tests come and go.
    statements: mpsc::UnboundedSender<(String, oneshot::Sender<Result<(), String>>)>,
    schemas: AtomicUsize,
}

/// A schema of one test's own.
pub struct Database {
    schema: String,
}

impl Database {
    /// A new one, without tables. Without a server the process ends here, successfully: it is there for tests with
    /// PostgreSQL alone.
    pub async fn create() -> Self {
        let server = server();
        let schema = format!("test_{}", server.schemas.fetch_add(1, Ordering::SeqCst));
        server
            .execute(&format!("CREATE SCHEMA {schema} AUTHORIZATION {}", *NAME))
            .await;
        Self { schema }
    }

    /// What `DATABASE_URL` is to be for the service to use it.
    pub fn url(&self) -> String {
        self.url_as(&NAME)
    }

    /// Its name.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The same as another role, with the password of the first.
    pub fn url_as(&self, role: &str) -> String {
        let (host, port) = server().address();
        self.url_of(role, &host.replace('/', "%2F"), port)
    }

    /// The same through something in between, on loopback.
    pub fn url_through(&self, port: u16) -> String {
        self.url_of(&NAME, "127.0.0.1", port)
    }

    fn url_of(&self, role: &str, host: &str, port: u16) -> String {
        let (name, schema) = (&*NAME, &self.schema);
        format!("postgres://{role}:{name}@{host}:{port}/{name}?options=-csearch_path%3D{schema}")
    }

    /// A connection as the service's role, for statements that the service would never send.
    pub async fn connect(&self) -> Client {
        connect(&self.url()).await
    }

    /// Does something as the one who may do anything, in this schema.
    pub async fn execute_as_superuser(&self, sql: &str) {
        server()
            .execute(&format!(
                "SET search_path = {}; {sql}; RESET search_path",
                self.schema
            ))
            .await;
    }
}

/// A connection without TLS.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .expect("a connection");
    tokio::spawn(connection);
    client
}

/// What begins a transaction in which only the tenant's rows are there.
pub fn begin(tenant: Tenant) -> String {
    format!("BEGIN; SET LOCAL app.tenant = '{}'", tenant.id)
}

/// The role whom `Database::url` connects as.
pub fn role() -> &'static str {
    &NAME
}

/// Where something in between finds the server.
pub fn upstream() -> Upstream {
    let (host, port) = server().address();
    if host.starts_with('/') {
        Upstream::Socket(format!("{host}/.s.PGSQL.{port}").into())
    } else {
        Upstream::Address(host, port)
    }
}

fn server() -> &'static Server {
    SERVER.as_ref().unwrap_or_else(|| leave_out())
}

fn leave_out() -> ! {
    static ONCE: Mutex<()> = Mutex::new(());
    let _only_one_says_so = ONCE.lock();
    say_left_out(
        "the tests with PostgreSQL. No initdb was found in PATH or /usr/lib/postgresql, and TEST_DATABASE_URL is not set",
    );
    process::exit(0)
}

/// Tells that something is not tested here, past the test harness, which would show it only if a test failed.
///
/// # Panics
///
/// Where everything must be tested.
pub fn say_left_out(what: &str) {
    assert!(
        env::var_os("TESTS_MUST_BE_COMPLETE").is_none(),
        "left out: {what}"
    );
    let written = io::stderr().write_all(format!("\nleft out: {what}.\n").as_bytes());
    written.expect("standard error");
}

impl Server {
    fn new(url: &str) -> Self {
        let config: Config = url
            .parse()
            .expect("TEST_DATABASE_URL must be a URL of PostgreSQL's");
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
                    // Whoever asked may be gone.
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
            [Host::Unix(directory), ..] => directory.to_str().expect("a path of UTF-8").to_owned(),
            [] => panic!("TEST_DATABASE_URL must name a host"),
        };
        (
            host,
            self.config.get_ports().first().copied().unwrap_or(5432),
        )
    }

    async fn execute(&self, sql: &str) {
        let (done, is_done) = oneshot::channel();
        self.statements
            .send((sql.to_owned(), done))
            .expect("its thread lives");
        is_done
            .await
            .expect("its thread lives")
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

/// Makes the run's role and database, and removes those of runs that are over.
async fn set_up(mut config: Config) -> Client {
    let connect = async |config: &Config| {
        let (client, connection) = config
            .connect(NoTls)
            .await
            .expect("a connection as administrator");
        tokio::spawn(connection);
        client
    };
    let client = connect(&config).await;
    let gone = "SELECT datname FROM pg_database WHERE starts_with(datname, $1) AND NOT EXISTS \
                (SELECT FROM pg_stat_activity WHERE pg_stat_activity.datname = pg_database.datname)";
    for row in client
        .query(gone, &[&PREFIX])
        .await
        .expect("a list of databases")
    {
        let name: String = row.get(0);
        // A run that starts at the same time may have been faster.
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
            .expect("TEST_DATABASE_URL may create roles and databases");
    }
    connect(config.dbname(name)).await
}

/// A cluster in a folder of its own, reached through a socket in that folder.
pub struct ThrowAway {
    folder: PathBuf,
    programs: PathBuf,
    port: String,
    keeper: Child,
}

impl ThrowAway {
    /// Starts one; `None` without PostgreSQL's programs.
    pub fn start() -> Option<Self> {
        Self::start_with(|_| vec!["listen_addresses=".to_owned()])
    }

    /// The same with settings of its own, and with files that are first put into its folder.
    pub fn start_with(prepare: impl FnOnce(&Path) -> Vec<String>) -> Option<Self> {
        let programs = programs()?;
        let folder = tempfile::Builder::new()
            .prefix("postgres-")
            .tempdir()
            .expect("a folder")
            .keep();
        // The keeper starts the server again when it crashes. It stops it and removes the folder when its standard
        // input ends: when this process does, however that comes about.
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
        if let Some((user, group)) = someone_else() {
            let files = std::fs::read_dir(&folder)
                .expect("a folder")
                .flatten()
                .map(|file| file.path());
            for path in files.chain([folder.clone()]) {
                chown(path, Some(user), Some(group)).expect("a folder of theirs");
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

    /// What `pg_ctl stop -m immediate` does: no goodbye to anybody, and nothing written down. It starts again
    /// by itself, and recovers.
    pub fn crash(&self) {
        let pid = std::fs::read_to_string(self.folder.join("data/postmaster.pid"))
            .expect("a running server");
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
            reason = "a server is waited for, not a step of the tests' clock"
        )]
        let begun = Instant::now();
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
                begun.elapsed() < PATIENCE,
                "PostgreSQL did not start: {}",
                log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its URL; it then runs until the end of the process.
    fn into_url(mut self) -> String {
        // The pipe stays open as long as the process lives.
        std::mem::forget(self.keeper.stdin.take());
        self.url("postgres", "postgres")
    }

    /// Its URL for a role whose password is its name.
    pub fn url(&self, role: &str, database: &str) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://{role}:{role}@{folder}:{}/{database}", self.port)
    }
}

/// The folder of PostgreSQL's server programs, which Debian keeps out of `PATH`.
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
    // In PATH there may be links to a few of them.
    let initdb = |folder: PathBuf| folder.join("initdb").canonicalize().ok();
    let initdb = env::split_paths(&path)
        .chain(versions.into_iter().rev())
        .find_map(initdb)?;
    initdb.parent().map(Path::to_owned)
}

/// PostgreSQL does not run as root: its own user or, failing that, nobody's, if we are root.
fn someone_else() -> Option<(u32, u32)> {
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
