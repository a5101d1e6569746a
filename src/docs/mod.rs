//! The guides. On GitHub, they are the files `src/docs/*.md`.
//!
//! A guide names its links by label, such as `[Reload][configuration#reload]`, and defines the
//! labels at its end as links to files. Here `links.txt` precedes each guide and defines the labels
//! as links to these modules. The first definition of a label applies.

macro_rules! guides {
    ($($name:ident: $file:literal,)*) => {
        $(
            #[doc = include_str!("links.txt")]
            #[doc = include_str!($file)]
            pub mod $name {}
        )*
    };
}

guides! {
    api: "api.md",
    configuration: "configuration.md",
    entra: "entra.md",
    tenants: "tenants.md",
    signing_keys: "signing-keys.md",
    postgres: "postgres.md",
    poolers: "poolers.md",
    performance: "performance.md",
    operations: "operations.md",
    log: "log.md",
    deployment: "deployment.md",
    differences: "differences.md",
    make_it_yours: "make-it-yours.md",
    security: "security.md",
    faq: "faq.md",
}
