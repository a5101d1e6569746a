//! The guides, as `src/docs/*.md` on a forge.
//!
//! A guide names its links by label, such as `[Reload][configuration#reload]`, and defines the
//! labels at its end as links to files. Here each label is defined before the text as a link to an
//! item of this module. The first definition of a label applies.

macro_rules! guides {
    ($($name:ident: $file:literal,)*) => {
        $(
            /// [api#cors]: crate::docs::api#cors
            /// [api#errors]: crate::docs::api#errors
            /// [api#tasks]: crate::docs::api#tasks
            /// [configuration]: crate::docs::configuration
            /// [configuration#in-memory-or-postgresql]: crate::docs::configuration#in-memory-or-postgresql
            /// [configuration#outbound-proxies]: crate::docs::configuration#outbound-proxies
            /// [configuration#reload]: crate::docs::configuration#reload
            /// [entra]: crate::docs::entra
            /// [entra#another-tenant]: crate::docs::entra#another-tenant
            /// [entra#setup]: crate::docs::entra#setup
            /// [entra#unable-to-find-signing-key]: crate::docs::entra#unable-to-find-signing-key
            /// [entra#what-users-see-and-what-helps]: crate::docs::entra#what-users-see-and-what-helps
            /// [operations]: crate::docs::operations
            /// [operations#metrics-and-alerts]: crate::docs::operations#metrics-and-alerts
            /// [postgres]: crate::docs::postgres
            /// [signing-keys]: crate::docs::signing_keys
            /// [signing-keys#cache-and-rollover]: crate::docs::signing_keys#cache-and-rollover
            #[doc = ""]
            #[doc = include_str!($file)]
            pub mod $name {}
        )*
    };
}

guides! {
    api: "api.md",
    configuration: "configuration.md",
    entra: "entra.md",
    signing_keys: "signing-keys.md",
    postgres: "postgres.md",
    performance: "performance.md",
    operations: "operations.md",
    deployment: "deployment.md",
    differences: "differences.md",
    make_it_yours: "make-it-yours.md",
    faq: "faq.md",
}
