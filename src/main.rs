//! The binary. Its commands are in `tenant_tasks::commands`.

use std::{io, process::ExitCode};

use mimalloc::MiMalloc;
use tokio::runtime::Runtime;

/// The service allocates many small strings. glibc's allocator needs 10 % more time and memory for
/// them.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> io::Result<ExitCode> {
    let runtime = Runtime::new()?;
    let code = runtime.block_on(tenant_tasks::commands::run());
    // Does not wait for a thread that reads a file from a file system that hangs.
    runtime.shutdown_background();
    Ok(code)
}
