//! What tests need from the kernel and the allocator, and the product never does. The same rules hold as in `src/sys/`:
//! safe functions, a `// SAFETY:` and a test for each unsafe block.

pub mod confine;
pub mod counting_alloc;
pub mod planted;
pub mod tls;

use std::io;

/// Turns the `-1` of a C call into the error it left in `errno`.
fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
