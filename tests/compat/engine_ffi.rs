// engine_ffi.rs - transfer_engine_c.h from Rust: one process, two engines, one write, one read and a notification.
//
// Goal: the binary interface as another language declares it (by value, by pointer, 32-bit ids), without our header.
use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::ptr::null_mut;

#[repr(C)]
#[derive(Clone, Copy)]
struct TransferRequest {
    opcode: c_int,
    source: *mut c_void,
    target_id: i32,
    target_offset: u64,
    length: u64,
}

#[repr(C)]
struct TransferStatus {
    status: c_int,
    transferred_bytes: u64,
}

#[repr(C)]
struct NotifyMsg {
    name: *mut c_char,
    msg: *mut c_char,
}

extern "C" {
    fn createTransferEngine(conn: *const c_char, name: *const c_char, host: *const c_char, port: u64, auto: c_int) -> *mut c_void;
    fn installTransport(engine: *mut c_void, proto: *const c_char, args: *mut *mut c_void) -> *mut c_void;
    fn getLocalIpAndPort(engine: *mut c_void, out: *mut c_char, len: usize) -> c_int;
    fn registerLocalMemory(engine: *mut c_void, addr: *mut c_void, len: usize, location: *const c_char, remote: c_int) -> c_int;
    fn unregisterLocalMemory(engine: *mut c_void, addr: *mut c_void) -> c_int;
    fn openSegment(engine: *mut c_void, name: *const c_char) -> i32;
    fn allocateBatchID(engine: *mut c_void, size: usize) -> u64;
    fn submitTransferWithNotify(engine: *mut c_void, batch: u64, entries: *mut TransferRequest, count: usize, note: NotifyMsg) -> c_int;
    fn submitTransfer(engine: *mut c_void, batch: u64, entries: *mut TransferRequest, count: usize) -> c_int;
    fn getTransferStatus(engine: *mut c_void, batch: u64, task: usize, status: *mut TransferStatus) -> c_int;
    fn freeBatchID(engine: *mut c_void, batch: u64) -> c_int;
    fn getNotifsFromEngine(engine: *mut c_void, size: *mut c_int) -> *mut NotifyMsg;
    fn freeNotifsMsgBuf(msg: *mut NotifyMsg, size: c_int) -> c_int;
    fn destroyTransferEngine(engine: *mut c_void);
}

unsafe fn create() -> *mut c_void {
    let (conn, host, none) = (c"P2PHANDSHAKE", c"127.0.0.1", c"");
    let engine = createTransferEngine(conn.as_ptr(), host.as_ptr(), none.as_ptr(), 0, 0);
    assert!(!engine.is_null() && !installTransport(engine, c"tcp".as_ptr(), null_mut()).is_null());
    engine
}

unsafe fn finish(engine: *mut c_void, batch: u64, task: usize) -> u64 {
    let mut status = TransferStatus { status: 1, transferred_bytes: 0 };
    while status.status < 2 {
        assert_eq!(getTransferStatus(engine, batch, task, &mut status), 0);
        std::thread::yield_now();
    }
    assert_eq!(status.status, 4);
    status.transferred_bytes
}

fn main() {
    unsafe {
        let (near, far) = (create(), create());
        let mut theirs = vec![0u8; 100_000];
        let mut ours: Vec<u8> = (0..50_000u32).map(|i| (i * 7 % 251) as u8).collect();
        let mut back = vec![0u8; 50_000];
        let mut name = [0 as c_char; 64];
        assert_eq!(registerLocalMemory(far, theirs.as_mut_ptr().cast(), theirs.len(), c"*".as_ptr(), 1), 0);
        assert_eq!(getLocalIpAndPort(far, name.as_mut_ptr(), name.len()), 0);
        let peer = openSegment(near, name.as_ptr());
        assert!(peer > 0);
        let batch = allocateBatchID(near, 2);
        let mut request = TransferRequest {
            opcode: 1,
            source: ours.as_mut_ptr().cast(),
            target_id: peer,
            target_offset: theirs.as_ptr() as u64 + 12_345,
            length: 50_000,
        };
        let (about, text) = (CString::new("rust").unwrap(), CString::new("done").unwrap());
        let note = NotifyMsg { name: about.as_ptr() as *mut c_char, msg: text.as_ptr() as *mut c_char };
        assert_eq!(submitTransferWithNotify(near, batch, &mut request, 1, note), 0);
        assert_eq!(finish(near, batch, 0), 50_000);
        assert_eq!(&theirs[12_345..62_345], &ours[..]);
        request.opcode = 0;
        request.source = back.as_mut_ptr().cast();
        assert_eq!(submitTransfer(near, batch, &mut request, 1), 0);
        assert_eq!(finish(near, batch, 1), 50_000);
        assert_eq!(back, ours);
        assert_eq!(freeBatchID(near, batch), 0);
        let mut count = 0;
        let notes = getNotifsFromEngine(far, &mut count);
        assert_eq!(count, 1);
        assert_eq!(CStr::from_ptr((*notes).msg).to_str().unwrap(), "done");
        assert_eq!(freeNotifsMsgBuf(notes, count), 0);
        assert_eq!(unregisterLocalMemory(far, theirs.as_mut_ptr().cast()), 0);
        destroyTransferEngine(near);
        destroyTransferEngine(far);
    }
    println!("1 passed, 0 failed");
}
