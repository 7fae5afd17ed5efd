// store_ffi.rs - store_c.h from Rust: one process, a store with a segment, values put and got one by one and in arrays.
//
// Goal: the binary interface as another language declares it (structs by pointer, arrays of pointers, 64-bit results), without our
// header. `store_ffi HOST:PORT` with a master there.
use std::ffi::{c_char, c_int, c_void, CString};
use std::ptr::{null, null_mut};

#[repr(C)]
struct ReplicateConfig {
    replica_num: usize,
    with_soft_pin: c_int,
    with_hard_pin: c_int,
    preferred_segments: *const *const c_char,
    preferred_segments_count: usize,
}

extern "C" {
    fn mooncake_store_create() -> *mut c_void;
    fn mooncake_store_destroy(store: *mut c_void);
    fn mooncake_store_setup(store: *mut c_void, host: *const c_char, metadata: *const c_char, segment: u64, buffer: u64,
        protocol: *const c_char, device: *const c_char, master: *const c_char) -> c_int;
    fn mooncake_store_health_check(store: *mut c_void) -> c_int;
    fn mooncake_store_put(store: *mut c_void, key: *const c_char, value: *const c_void, size: usize, config: *const ReplicateConfig) -> c_int;
    fn mooncake_store_batch_put_from(store: *mut c_void, keys: *const *const c_char, buffers: *const *mut c_void, sizes: *const usize,
        count: usize, config: *const ReplicateConfig, results: *mut c_int) -> c_int;
    fn mooncake_store_get_into(store: *mut c_void, key: *const c_char, buffer: *mut c_void, size: usize) -> i64;
    fn mooncake_store_batch_get_into(store: *mut c_void, keys: *const *const c_char, buffers: *const *mut c_void, sizes: *const usize,
        count: usize, results: *mut i64) -> c_int;
    fn mooncake_store_is_exist(store: *mut c_void, key: *const c_char) -> c_int;
    fn mooncake_store_get_size(store: *mut c_void, key: *const c_char) -> i64;
    fn mooncake_store_get_hostname(store: *mut c_void, out: *mut c_char, len: usize) -> c_int;
    fn mooncake_store_remove(store: *mut c_void, key: *const c_char, force: c_int) -> c_int;
    fn mooncake_store_remove_by_regex(store: *mut c_void, pattern: *const c_char, force: c_int) -> i64;
    fn mooncake_store_register_buffer(store: *mut c_void, buffer: *mut c_void, size: usize) -> c_int;
    fn mooncake_store_unregister_buffer(store: *mut c_void, buffer: *mut c_void) -> c_int;
}

const SIZE: usize = 70_001;

unsafe fn set_up(master: &str) -> *mut c_void {
    let store = mooncake_store_create();
    assert!(!store.is_null());
    assert_eq!(mooncake_store_health_check(store), 1);
    let master = CString::new(master).unwrap();
    let result = mooncake_store_setup(store, c"localhost".as_ptr(), c"P2PHANDSHAKE".as_ptr(), 64 << 20, 1 << 20, c"tcp".as_ptr(),
        c"".as_ptr(), master.as_ptr());
    assert_eq!(result, 0);
    store
}

unsafe fn one_by_one(store: *mut c_void) {
    let value = b"from rust";
    let mut back = [0u8; 9];
    assert_eq!(mooncake_store_put(store, c"one".as_ptr(), value.as_ptr().cast(), value.len(), null()), 0);
    assert_eq!(mooncake_store_get_into(store, c"one".as_ptr(), back.as_mut_ptr().cast(), back.len()), 9);
    assert_eq!(&back, value);
    assert_eq!(mooncake_store_get_into(store, c"one".as_ptr(), back.as_mut_ptr().cast(), 8), -600);
    assert_eq!((mooncake_store_is_exist(store, c"one".as_ptr()), mooncake_store_get_size(store, c"one".as_ptr())), (1, 9));
    assert_eq!(mooncake_store_remove(store, c"one".as_ptr(), 0), -706);
    assert_eq!(mooncake_store_remove(store, c"one".as_ptr(), 1), 0);
    assert_eq!(mooncake_store_get_size(store, c"one".as_ptr()), -704);
    assert_eq!(mooncake_store_put(null_mut(), c"one".as_ptr(), value.as_ptr().cast(), value.len(), null()), -1);
}

unsafe fn in_arrays(store: *mut c_void) {
    let mut name = [0 as c_char; 64];
    assert_eq!(mooncake_store_get_hostname(store, name.as_mut_ptr(), name.len()), 0);
    let preferred = [name.as_ptr()];
    let config = ReplicateConfig {
        replica_num: 1,
        with_soft_pin: 0,
        with_hard_pin: 1,
        preferred_segments: preferred.as_ptr(),
        preferred_segments_count: 1,
    };
    let mut values: Vec<u8> = (0..3 * SIZE).map(|i| (i * 31 % 251) as u8).collect();
    let mut back = vec![0u8; 3 * SIZE];
    assert_eq!(mooncake_store_register_buffer(store, values.as_mut_ptr().cast(), values.len()), 0);
    let names: Vec<CString> = (0..3).map(|i| CString::new(format!("array/{i}")).unwrap()).collect();
    let keys: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let from: Vec<*mut c_void> = (0..3).map(|i| values.as_mut_ptr().add(i * SIZE).cast()).collect();
    let into: Vec<*mut c_void> = (0..3).map(|i| back.as_mut_ptr().add(i * SIZE).cast()).collect();
    let (mut put, mut got) = ([7 as c_int; 3], [7i64; 3]);
    assert_eq!(mooncake_store_batch_put_from(store, keys.as_ptr(), from.as_ptr(), [SIZE; 3].as_ptr(), 3, &config, put.as_mut_ptr()), 0);
    assert_eq!(mooncake_store_batch_get_into(store, keys.as_ptr(), into.as_ptr(), [SIZE; 3].as_ptr(), 3, got.as_mut_ptr()), 0);
    assert_eq!((put, got), ([0; 3], [SIZE as i64; 3]));
    assert!(values == back);
    assert_eq!(mooncake_store_unregister_buffer(store, values.as_mut_ptr().cast()), 0);
    assert_eq!(mooncake_store_remove_by_regex(store, c"^array/[01]$".as_ptr(), 1), 2);
    assert_eq!((mooncake_store_is_exist(store, keys[0]), mooncake_store_is_exist(store, keys[2])), (0, 1));
}

fn main() {
    let master = std::env::args().nth(1).expect("where is the master?");
    unsafe {
        let store = set_up(&master);
        one_by_one(store);
        in_arrays(store);
        mooncake_store_destroy(store);
    }
    println!("1 passed, 0 failed");
}
