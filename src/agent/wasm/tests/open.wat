;; open FD HOW PATH: opens a path below a granted directory. HOW r copies it to stdout, w makes it and writes "written" there, d
;; makes a directory, u removes a file, t touches a file that was opened to be read. Exits with what WASI says: 0, or an error's number.
(module
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_create_directory" (func $mkdir (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_unlink_file" (func $unlink (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_filestat_set_times" (func $touch (param i32 i64 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "written")
  ;; 16: pointers of the arguments; 64: a buffer's place and length; 72: a count; 76: the file; 1024: the arguments; 65536: bytes
  (func $check (param $error i32)
    (if (local.get $error) (then (call $exit (local.get $error)))))
  (func $length (param $text i32) (result i32)
    (local $end i32)
    (local.set $end (local.get $text))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (i32.load8_u (local.get $end))))
        (local.set $end (i32.add (local.get $end) (i32.const 1)))
        (br $next)))
    (i32.sub (local.get $end) (local.get $text)))
  (func $buffer (param $at i32) (param $length i32)
    (i32.store (i32.const 64) (local.get $at))
    (i32.store (i32.const 68) (local.get $length)))
  (func (export "_start")
    (local $dir i32) (local $how i32) (local $path i32) (local $length i32)
    (call $check (call $args (i32.const 16) (i32.const 1024)))
    (local.set $dir (i32.sub (i32.load8_u (i32.load (i32.const 20))) (i32.const 48)))
    (local.set $how (i32.load8_u (i32.load (i32.const 24))))
    (local.set $path (i32.load (i32.const 28)))
    (local.set $length (call $length (local.get $path)))
    (if (i32.eq (local.get $how) (i32.const 100)) (then
      (call $exit (call $mkdir (local.get $dir) (local.get $path) (local.get $length)))))
    (if (i32.eq (local.get $how) (i32.const 117)) (then
      (call $exit (call $unlink (local.get $dir) (local.get $path) (local.get $length)))))
    (if (i32.eq (local.get $how) (i32.const 119)) (then
      (call $check (call $open (local.get $dir) (i32.const 1) (local.get $path) (local.get $length)
        (i32.const 1) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 76)))
      (call $buffer (i32.const 0) (i32.const 7))
      (call $exit (call $write (i32.load (i32.const 76)) (i32.const 64) (i32.const 1) (i32.const 72)))))
    (call $check (call $open (local.get $dir) (i32.const 1) (local.get $path) (local.get $length)
      (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 76)))
    (if (i32.eq (local.get $how) (i32.const 116)) (then
      (call $exit (call $touch (i32.load (i32.const 76)) (i64.const 0) (i64.const 0) (i32.const 10)))))
    (loop $next
      (call $buffer (i32.const 65536) (i32.const 65536))
      (call $check (call $read (i32.load (i32.const 76)) (i32.const 64) (i32.const 1) (i32.const 72)))
      (if (i32.load (i32.const 72)) (then
        (call $buffer (i32.const 65536) (i32.load (i32.const 72)))
        (call $check (call $write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 72)))
        (br $next))))))
