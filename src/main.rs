//! The binary. Its commands are in `tenant_tasks::commands`.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// The service allocates many small strings. glibc's allocator needs 10 % more time and memory for
/// them.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    tenant_tasks::commands::run().await
}
