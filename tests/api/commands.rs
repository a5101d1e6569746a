//! The other commands of the binary: right and wrong input, what it answers, and its exit codes.

#![expect(
    clippy::disallowed_methods,
    reason = "how long a change takes to be in force is measured in real time"
)]

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::{Method, StatusCode};
use tenant_tasks::clock::SystemClock;
use tokio::task::JoinSet;

use crate::{
    service::{Service, command},
    support::{
        app::{answer, listen},
        entra::{KeysResponse, MockEntra},
        users::{ADMIN, API_CLIENT_ID, CONTOSO, EDITOR, FABRIKAM, NORTHWIND},
    },
};

/// Runs the binary: what it says to standard output and to standard error, and its exit code.
pub(crate) fn run(
    arguments: &[&str],
    file: Option<&str>,
    settings: &[(&str, &str)],
) -> (String, String, Option<i32>, String) {
    let (mut command, directory) = command(settings);
    if let Some(file) = file {
        fs::write(directory.path().join(".env"), file).unwrap();
    }
    let output = command
        .args(arguments)
        .stdout(std::process::Stdio::piped())
        .output()
        .unwrap();
    let left = fs::read_to_string(directory.path().join(".env")).unwrap_or_default();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        text(output.stdout),
        text(output.stderr),
        output.status.code(),
        left,
    )
}

#[test]
fn every_command_has_help_and_the_binary_a_version() {
    for (arguments, line) in [
        (&["--help"][..], "Usage: tenant-tasks [COMMAND]"),
        (&["serve", "--help"], "Usage: tenant-tasks serve"),
        (
            &["tenants", "--help"],
            "Usage: tenant-tasks tenants <COMMAND>",
        ),
        (
            &["tenants", "add", "--help"],
            "Usage: tenant-tasks tenants add <TENANT_ID>...",
        ),
        (
            &["tenants", "remove", "--help"],
            "Usage: tenant-tasks tenants remove <TENANT_ID>...",
        ),
        (
            &["tenants", "list", "--help"],
            "Usage: tenant-tasks tenants list",
        ),
        (&["check", "--help"], "Usage: tenant-tasks check"),
        (
            &["token", "inspect", "--help"],
            "Usage: tenant-tasks token inspect",
        ),
        (&["health", "--help"], "Usage: tenant-tasks health"),
    ] {
        let (said, _, code, _) = run(arguments, None, &[]);
        assert!(
            said.contains(line) && code == Some(0),
            "{arguments:?}: {said}"
        );
    }
    let version = concat!("tenant-tasks ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(run(&["--version"], None, &[]).0, version);
}

#[test]
fn called_wrongly_it_says_how_and_ends_with_2() {
    for (arguments, message) in [
        (&["tenant"][..], "unrecognized subcommand 'tenant'"),
        (&["--port", "1"], "unexpected argument '--port'"),
        (&["tenants", "add"], "<TENANT_ID>..."),
        (
            &["tenants", "add", "contoso"],
            "invalid value 'contoso' for '<TENANT_ID>...': not a hyphenated GUID",
        ),
        (&["token"], "Usage: tenant-tasks token <COMMAND>"),
    ] {
        let (_, said, code, _) = run(arguments, None, &[]);
        assert!(said.contains(message), "{arguments:?}: {said}");
        assert_eq!(code, Some(2), "{arguments:?}");
    }
}

#[test]
fn tenants_are_listed_added_and_removed() {
    let (contoso, fabrikam) = (CONTOSO.id, FABRIKAM.id);
    let file = format!("# mine\nAZURE_HOME_TENANT_ID={contoso}\n");
    let (said, _, code, _) = run(&["tenants", "list"], Some(&file), &[]);
    assert_eq!((said, code), (format!("{contoso}\n"), Some(0)));

    let (said, _, code, left) = run(&["tenants", "add", fabrikam, contoso], Some(&file), &[]);
    assert!(
        said.starts_with(&format!(
            "{fabrikam}: added\n{contoso}: already on the list\n"
        )),
        "{said}"
    );
    let both = format!("{file}ALLOWED_TENANT_IDS={contoso},{fabrikam}\n");
    assert_eq!(
        (code, left),
        (Some(0), both.clone()),
        "the home tenant is still in"
    );

    let (said, _, code, left) = run(&["tenants", "remove", fabrikam], Some(&both), &[]);
    assert!(said.contains("removed"), "{said}");
    assert_eq!(
        (code, left),
        (Some(0), format!("{file}ALLOWED_TENANT_IDS={contoso}\n"))
    );

    let (said, _, code, left) = run(&["tenants", "add", contoso], Some(&both), &[]);
    assert_eq!(
        (said, code, left),
        (format!("{contoso}: already on the list\n"), Some(0), both)
    );
}

#[test]
fn a_change_that_would_not_do_what_it_says_is_refused_and_changes_nothing() {
    let (contoso, fabrikam) = (CONTOSO.id, FABRIKAM.id);
    let one = format!("ALLOWED_TENANT_IDS={contoso}\n");
    let open = format!("{one}ALLOW_ANY_TENANT=true\n");
    let clever = format!("T={contoso}\nALLOWED_TENANT_IDS=$T,{fabrikam}\n");
    let in_environment = [("ALLOWED_TENANT_IDS", contoso)];
    let none: &[(&str, &str)] = &[];
    for (arguments, file, settings, message) in [
        (
            ["tenants", "remove", contoso],
            Some(&*one),
            none,
            "nobody would be left",
        ),
        (
            ["tenants", "remove", fabrikam],
            Some(&one),
            none,
            "is not on the list",
        ),
        (
            ["tenants", "remove", contoso],
            Some(&open),
            none,
            "ALLOW_ANY_TENANT=true lets users of any",
        ),
        (
            ["tenants", "add", fabrikam],
            Some(&open),
            none,
            "ALLOW_ANY_TENANT=true lets users of any",
        ),
        (
            ["tenants", "remove", contoso],
            Some(&clever),
            none,
            ".env, line 2: ALLOWED_TENANT_IDS is written in a way",
        ),
        (
            ["tenants", "add", fabrikam],
            Some(&one),
            &in_environment,
            "is set in the environment",
        ),
        (
            ["tenants", "add", fabrikam],
            Some("ALLOWED_TENANT_IDS=x\n"),
            none,
            "entry 1 is not one",
        ),
        (
            ["tenants", "add", fabrikam],
            None,
            none,
            "there is no .env in this folder",
        ),
    ] {
        let (_, said, code, left) = run(&arguments, file, settings);
        assert!(
            said.contains(message) && said.lines().count() == 1,
            "{arguments:?}: {said}"
        );
        assert_eq!(
            (code, left.as_str()),
            (Some(1), file.unwrap_or_default()),
            "{arguments:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_everything_that_is_wrong_and_whose_keys_cannot_be_fetched() {
    let entra = MockEntra::start(listen().await, Arc::new(SystemClock::new()));
    let allowed = format!("{},{}", CONTOSO.id, FABRIKAM.id);
    let good = [
        ("AZURE_API_CLIENT_ID", API_CLIENT_ID),
        ("AZURE_AUTHORITY_HOST", &*entra.authority),
        ("ALLOWED_TENANT_IDS", &*allowed),
    ];
    let (said, _, code, _) = run(&["check"], Some("ALLOWED_TENANTS=x\n"), &good);
    let both = |keys: &str| {
        format!(
            "note      .env sets ALLOWED_TENANTS, which is no setting of this service\nok        settings\n\
             ok        tenant {}: 2 signing keys\n{keys}",
            CONTOSO.id
        )
    };
    assert_eq!(
        (said, code),
        (
            both(&format!(
                "ok        tenant {}: 2 signing keys\n",
                FABRIKAM.id
            )),
            Some(0)
        )
    );

    entra.set_keys_response(FABRIKAM, KeysResponse::Status(503));
    let (said, _, code, _) = run(&["check"], Some("ALLOWED_TENANTS=x\n"), &good);
    let wrong = format!(
        "WRONG     tenant {}: no signing keys: status 503 Service Unavailable\n",
        FABRIKAM.id
    );
    assert_eq!((said, code), (both(&wrong), Some(1)));

    let bad = [
        ("ALLOWED_TENANT_IDS", "contoso"),
        ("PORT", "http"),
        ("DATABASE_URL", "s3cret"),
    ];
    let (said, _, code, _) = run(&["check"], None, &bad);
    for variable in [
        "AZURE_API_CLIENT_ID is not set",
        "ALLOWED_TENANT_IDS must",
        "PORT must",
        "DATABASE_URL must",
    ] {
        assert!(said.contains(&format!("WRONG     {variable}")), "{said}");
    }
    assert!(!said.contains("s3cret"), "{said}");
    assert_eq!(code, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_what_the_service_on_this_machine_says() {
    let service = Service::start(&[]);
    let port = service.address.rsplit_once(':').unwrap().1.to_owned();
    let settings = [
        ("AZURE_API_CLIENT_ID", API_CLIENT_ID),
        ("AZURE_HOME_TENANT_ID", CONTOSO.id),
        ("PORT", &*port),
    ];
    for host in ["127.0.0.1", "0.0.0.0", "localhost"] {
        let (_, said, code, _) = run(
            &["health"],
            None,
            &[&settings[..], &[("HOST", host)]].concat(),
        );
        assert_eq!(code, Some(0), "{host}: {said}");
    }
    // One that runs goes on with its old settings; what is wrong with the new ones is not for a supervisor to restart.
    let address = [("PORT", &*port)];
    for broken in ["ALLOWED_TENANT_IDS=x\n", "no assignment\n"] {
        assert_eq!(
            run(&["health"], Some(broken), &address).2,
            Some(0),
            "{broken}"
        );
    }
    drop(service);
    let (_, said, code, _) = run(&["health"], None, &settings);
    assert_eq!(
        (said, code),
        (
            format!("tenant-tasks: http://127.0.0.1:{port}/health does not answer\n"),
            Some(1)
        )
    );
}

#[test]
fn a_service_that_will_not_know_is_said_to_go_on_as_before() {
    let (contoso, fabrikam) = (CONTOSO.id, FABRIKAM.id);
    let file = format!("ALLOWED_TENANT_IDS={contoso}\n");
    for (settings, broken, reason) in [
        (
            &[("ALLOWED_TENANT_IDS", contoso)][..],
            "",
            "is in its environment, which wins",
        ),
        (
            &[("ALLOW_ANY_TENANT", "true")],
            "",
            "is in its environment, which wins",
        ),
        (
            &[],
            "DOCS=x\n",
            "it would not take .env over: DOCS must be on or off",
        ),
    ] {
        let service = Service::start_with_file(&file, settings);
        service.rewrite_file(&format!("{file}{broken}"));
        let (said, code) = service.command_that_fails(&["tenants", "add", fabrikam]);
        assert!(
            said.contains("goes on as before") && said.contains(reason),
            "{said}"
        );
        assert_eq!(code, Some(1));
    }
}

/// The operator's way to onboard and to offboard, under load.
#[tokio::test(flavor = "multi_thread")]
async fn an_organisation_comes_and_goes_by_command_under_load_and_nobody_else_notices() {
    let entra = MockEntra::start(listen().await, Arc::new(SystemClock::new()));
    let file = format!(
        "# who may come in\nALLOWED_TENANT_IDS={},{}\n",
        CONTOSO.id, FABRIKAM.id
    );
    let service = Service::start_with_file(&file, &[("AZURE_AUTHORITY_HOST", &entra.authority)]);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/api/me", service.address);
    let (is_over, answered) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut load = JoinSet::new();
    for who in [
        (CONTOSO, ADMIN),
        (CONTOSO, EDITOR),
        (FABRIKAM, ADMIN),
        (FABRIKAM, EDITOR),
    ] {
        let (client, url, token) = (client.clone(), url.clone(), entra.v1(who.0, who.1).sign());
        let (is_over, answered) = (Arc::clone(&is_over), Arc::clone(&answered));
        load.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                let answer = answer(client.request(Method::GET, &url).bearer_auth(&token)).await;
                assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    let token = entra.v1(NORTHWIND, ADMIN).sign();
    let me = async || {
        answer(client.request(Method::GET, &url).bearer_auth(&token))
            .await
            .status
    };
    let mut figures = Vec::new();
    for _ in 0..20 {
        for (command, expected) in [("add", StatusCode::OK), ("remove", StatusCode::FORBIDDEN)] {
            let started = Instant::now();
            let told = service.command(&["tenants", command, NORTHWIND.id]);
            assert!(told.contains("told the service that runs here"), "{told}");
            while me().await != expected {
                assert!(
                    started.elapsed() < Duration::from_secs(10),
                    "{command} has no effect"
                );
            }
            figures.push((command, started.elapsed()));
            let tenants = service.command(&["tenants", "list"]);
            assert_eq!(
                tenants.contains(NORTHWIND.id),
                command == "add",
                "{tenants}"
            );
        }
    }
    is_over.store(true, Ordering::Relaxed);
    while let Some(end) = load.join_next().await {
        end.expect("nobody else fails");
    }
    for which in ["add", "remove"] {
        let mut times: Vec<_> = figures
            .iter()
            .filter(|(command, _)| *command == which)
            .map(|(_, time)| *time)
            .collect();
        times.sort();
        println!(
            "tenants {which}: in force {:?} to {:?} after the command was called",
            times[0],
            times[times.len() - 1]
        );
    }
    println!(
        "{} requests of others, none failed",
        answered.load(Ordering::Relaxed)
    );
    assert!(answered.load(Ordering::Relaxed) > 100);
    assert_eq!(
        service.file(),
        file,
        "what was added and removed leaves no trace"
    );
}
