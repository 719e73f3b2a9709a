//! Read-only windows onto files, and the guard that keeps a shrinking file from killing the process.
//!
//! Never writes through a mapping, never decides what a torn read means. Invariant: while a
//! [`Window`] lives, its pages stand in the table of ranges, so a fault in them is answered with
//! zeros and the window knows that it is torn; a fault anywhere else goes where it went before.
//!
//! 1. `open` maps the pages and claims a slot of the table. A full table is an error: the caller
//!    reads the file instead.
//! 2. Reading a page that the file no longer has raises SIGBUS. The handler finds the window by the
//!    address, maps zeros from that page to the window's end, marks it as torn, and returns; the
//!    read goes on. One signal per window, however many pages it lost.
//! 3. Dropping the window gives the slot back, then unmaps.
//!
//! Awkward cases: the end of the last page of a file reads as zeros without a fault, and a file can
//! change in place, so a window that is not torn proves nothing by itself: the reader compares the
//! file's stat before and after, or the content id. A SIGBUS in no window goes to the handler that
//! was there before ours (of the standard library, or of the host).
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use libc::{c_int, c_void};
use memmap2::{Mmap, MmapOptions};

/// A read-only mapping of a part of a file. It keeps reading, as zeros, when the file shrinks.
#[derive(Debug)]
pub struct Window {
    // Declared first, so that the slot is free again before the pages are.
    slot: Slot,
    map: Mmap,
}

impl Window {
    /// Maps `length` bytes of `file` from `offset`, both in bytes and without any alignment. The
    /// file should have these bytes; what it lacks reads as zeros and tears the window.
    ///
    /// # Errors
    /// `InvalidInput` for a window of 2 GiB or more, `QuotaExceeded` when too many windows are open,
    /// or what `mmap` or `sigaction` say. In each case the file can still be read in the usual way.
    pub fn open(file: &File, offset: u64, length: usize) -> io::Result<Window> {
        install_guard()?;
        // SAFETY: the mapping is private to this type, which hands out nothing but shared bytes. A
        // file that shrinks is answered by the guard; one that is written to meanwhile makes the
        // bytes change under the reader, which only hashes and sends them, and compares afterwards.
        let map = unsafe { MmapOptions::new().offset(offset).len(length).map(file)? };
        let slot = Slot::claim(map.as_ptr() as usize, length)?;
        Ok(Window { slot, map })
    }

    /// Whether a part of this window was lost and read as zeros. Ask after reading.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        TORN[self.slot.0].load(Ordering::Acquire)
    }
}

impl AsRef<[u8]> for Window {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

/// A claimed place in [`RANGES`] and [`TORN`].
#[derive(Debug)]
struct Slot(usize);

impl Slot {
    fn claim(address: usize, length: usize) -> io::Result<Slot> {
        let range = Range::around(address, length)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the window is too large"))?;
        let packed = range.pack();
        let free = |slot: &AtomicU64| {
            slot.load(Ordering::Relaxed) == 0
                && slot
                    .compare_exchange(0, packed, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
        };
        RANGES
            .iter()
            .position(free)
            .map(Slot)
            .ok_or_else(|| io::Error::new(io::ErrorKind::QuotaExceeded, "too many mapped windows are open"))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // In this order: whoever claims the slot next finds it whole.
        TORN[self.0].store(false, Ordering::Release);
        RANGES[self.0].store(0, Ordering::Release);
    }
}

/// Whole pages, packed into one word so that the handler never sees half of an update: the number
/// of the first page in the upper 45 bits (addresses have at most 57), the count in the lower 19.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u64,
    pages: u64,
}

impl Range {
    fn around(address: usize, length: usize) -> Option<Range> {
        let first = address as u64 >> PAGE_BITS;
        let end = (address as u64)
            .checked_add(length.max(1) as u64)?
            .div_ceil(1 << PAGE_BITS);
        let fits = end - first < 1 << COUNT_BITS && first > 0 && first < 1 << (64 - COUNT_BITS);
        fits.then_some(Range {
            first,
            pages: end - first,
        })
    }

    fn pack(self) -> u64 {
        self.first << COUNT_BITS | self.pages
    }

    fn unpack(packed: u64) -> Range {
        Range {
            first: packed >> COUNT_BITS,
            pages: packed & ((1 << COUNT_BITS) - 1),
        }
    }

    /// From the page of `address` to the end: where it starts and its bytes.
    fn rest_from(self, address: usize) -> Option<(usize, usize)> {
        let skipped = (address as u64 >> PAGE_BITS).checked_sub(self.first)?;
        let left = self.pages.checked_sub(skipped).filter(|left| *left > 0)?;
        let start = (self.first + skipped) << PAGE_BITS;
        Some((start as usize, (left as usize) << PAGE_BITS))
    }
}

/// Windows open at a time. The scan for a slot reads 8 bytes each, so at most 32 KiB.
const WINDOWS_MAX: usize = 4096;
const COUNT_BITS: u32 = 19;
const PAGE_BITS: u32 = 12;

/// Packed ranges of the open windows; 0 is a free slot.
static RANGES: [AtomicU64; WINDOWS_MAX] = [const { AtomicU64::new(0) }; WINDOWS_MAX];
/// Which of them lost pages.
static TORN: [AtomicBool; WINDOWS_MAX] = [const { AtomicBool::new(false) }; WINDOWS_MAX];

/// What handled SIGBUS before us. Set before our handler is installed.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the handler, once in a process.
fn install_guard() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| install().map_err(|e| e.raw_os_error().unwrap_or(0)));
    installed.map_err(io::Error::from_raw_os_error)
}

fn install() -> io::Result<()> {
    // SAFETY: `sigaction` is a plain C struct, for which all zero bits are valid (SIG_DFL).
    let mut previous: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null action only asks; `previous` is a valid place for the answer.
    if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut previous) } != 0 {
        return Err(io::Error::last_os_error());
    }
    PREVIOUS.get_or_init(|| previous);
    let handler: Handler = handle_sigbus;
    // SAFETY: as above.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    // ONSTACK, because the fault may be a stack that overflowed, which then is passed on.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the action is complete, and its handler is async-signal-safe: it uses atomics, `mmap`,
    // `sigaction` and `raise`, takes no lock and allocates nothing.
    if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

extern "C" fn handle_sigbus(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo, and the code tells a fault of the
    // hardware, which has an address, from a signal that a process sent, which has none.
    let (fault, address) = unsafe { ((*info).si_code > 0, (*info).si_addr() as usize) };
    if fault && answer_with_zeros(address) {
        return;
    }
    pass_on(signal, info, context, fault);
}

/// Whether `address` was in a window, and is zeros now.
fn answer_with_zeros(address: usize) -> bool {
    let found = RANGES.iter().enumerate().find_map(|(slot, range)| {
        let rest = Range::unpack(range.load(Ordering::Acquire)).rest_from(address)?;
        Some((slot, rest))
    });
    let Some((slot, (start, length))) = found else {
        return false;
    };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    TORN[slot].store(true, Ordering::Release);
    // SAFETY: the pages belong to a window that is being read on this thread, so it is not being
    // dropped, and nobody else maps there. They become readable zeros, which is what they promise.
    unsafe {
        let errno = *libc::__errno_location();
        let at = libc::mmap(start as *mut c_void, length, libc::PROT_READ, flags, -1, 0);
        *libc::__errno_location() = errno;
        at != libc::MAP_FAILED
    }
}

/// Lets the previous handler decide, or the default action, which ends the process.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void, fault: bool) {
    let previous = PREVIOUS.get();
    match previous.map_or(libc::SIG_DFL, |action| action.sa_sigaction) {
        libc::SIG_IGN if !fault => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: the default action needs no data. A fault happens again at once after the
            // return and meets it; a signal that was sent has to be sent again.
            unsafe {
                let mut default: libc::sigaction = std::mem::zeroed();
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const default, ptr::null_mut());
                if !fault {
                    libc::raise(signal);
                }
            }
        }
        handler if previous.is_some_and(|action| action.sa_flags & libc::SA_SIGINFO != 0) => {
            // SAFETY: it was installed with SA_SIGINFO, so it has this signature.
            let handler: Handler = unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: it was installed without SA_SIGINFO, so it takes the signal alone.
            let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    const PAGE: usize = 1 << PAGE_BITS;

    fn file_of(byte: u8, length: usize) -> File {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&vec![byte; length]).expect("room for a small file");
        file
    }

    #[test]
    fn a_window_shows_any_part_without_alignment() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..3 * PAGE).map(|at| (at % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        for (offset, length) in [(0, 3 * PAGE), (1, 10), (PAGE - 1, 2), (PAGE + 7, 2 * PAGE - 7), (5, 0)] {
            let window = Window::open(&file, offset as u64, length).unwrap();
            assert_eq!(window.as_ref(), &bytes[offset..offset + length], "{offset} {length}");
            assert!(!window.is_torn());
        }
    }

    #[test]
    fn a_file_that_shrinks_tears_its_own_window_only() {
        let (file, other) = (file_of(7, 8 * PAGE), file_of(9, 8 * PAGE));
        let torn = Window::open(&file, 100, 8 * PAGE - 100).unwrap();
        let whole = Window::open(&other, 0, 8 * PAGE).unwrap();
        file.set_len(3 * PAGE as u64).unwrap();
        let kept = 3 * PAGE - 100;
        assert!(torn.as_ref()[..kept].iter().all(|byte| *byte == 7));
        assert!(torn.as_ref()[kept..].iter().all(|byte| *byte == 0));
        assert!(torn.is_torn());
        assert!(whole.as_ref().iter().all(|byte| *byte == 9));
        assert!(!whole.is_torn());
        // The slot is clean for whoever gets it next.
        let slot = torn.slot.0;
        drop(torn);
        assert!(!TORN[slot].load(Ordering::Acquire));
    }

    #[test]
    fn slots_come_back_however_often_windows_open() {
        let file = file_of(1, PAGE);
        for _ in 0..3 * WINDOWS_MAX {
            let window = Window::open(&file, 0, PAGE).unwrap();
            assert_eq!(window.as_ref()[PAGE - 1], 1);
        }
    }

    #[test]
    fn windows_tear_on_many_threads_at_once() {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for round in 1..50 {
                        let file = file_of(round, 4 * PAGE);
                        let window = Window::open(&file, 0, 4 * PAGE).unwrap();
                        file.set_len(PAGE as u64).unwrap();
                        let sum: usize = window.as_ref().iter().map(|byte| usize::from(*byte)).sum();
                        assert_eq!(sum, PAGE * usize::from(round));
                        assert!(window.is_torn());
                    }
                });
            }
        });
    }

    #[test]
    fn a_range_survives_packing_and_knows_its_rest() {
        let range = Range::around(0x7f12_3456_7fff, 2).unwrap();
        assert_eq!(Range::unpack(range.pack()), range);
        assert_eq!(range.rest_from(0x7f12_3456_8001), Some((0x7f12_3456_8000, PAGE)));
        assert_eq!(range.rest_from(0x7f12_3456_7000), Some((0x7f12_3456_7000, 2 * PAGE)));
        assert_eq!(range.rest_from(0x7f12_3456_9000), None);
        assert_eq!(range.rest_from(0x7f12_3456_6fff), None);
        assert_eq!(Range::unpack(0).rest_from(0), None);
        assert_eq!(Range::around(0x7f12_3456_7000, 1 << 31), None);
    }

    #[test]
    fn a_full_table_is_an_error_and_nothing_else() {
        // In a process of its own, because other tests need slots meanwhile.
        if in_child("full") {
            let file = file_of(1, PAGE);
            let open = || Window::open(&file, 0, PAGE);
            let mut windows: Vec<Window> = (0..WINDOWS_MAX).map(|_| open().unwrap()).collect();
            assert_eq!(open().unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
            windows.pop();
            windows.push(open().unwrap());
            return;
        }
        let status = child("full", "a_full_table_is_an_error_and_nothing_else");
        assert!(status.success(), "{status}");
    }

    #[test]
    fn a_fault_outside_every_window_still_ends_the_process() {
        if in_child("stray") {
            let file = file_of(1, 2 * PAGE);
            let window = Window::open(&file, 0, PAGE).unwrap();
            // SAFETY: a plain mapping without a guard, to see what happens without it.
            let bare = unsafe { MmapOptions::new().map(&file).unwrap() };
            file.set_len(0).unwrap();
            assert_eq!(window.as_ref()[0], 0, "the guarded one survives");
            std::process::exit(i32::from(bare[PAGE]));
        }
        let status = child("stray", "a_fault_outside_every_window_still_ends_the_process");
        assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
    }

    fn in_child(role: &str) -> bool {
        std::env::var("SYNCLINE_TEST_ROLE").is_ok_and(|value| value == role)
    }

    fn child(role: &str, test: &str) -> std::process::ExitStatus {
        let program = std::env::current_exe().expect("the running test has a path");
        let test = format!("{}::{test}", module_path!().trim_start_matches("syncline::"));
        let mut command = Command::new(program);
        command
            .args([&test, "--exact", "--nocapture"])
            .env("SYNCLINE_TEST_ROLE", role);
        let output = command.output().expect("the test program starts again");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("running 1 test"), "{text}");
        output.status
    }
}
