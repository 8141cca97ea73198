//! A granted directory that is only read: whatever would change it, or let it be changed under another name, is refused.
//!
//! `wasi-common` keeps a module below the directory, whatever links and names it uses; it knows no directories that may only be read.

use std::{any::Any, io::IoSliceMut, io::SeekFrom, os::fd::BorrowedFd, path::PathBuf};

use wasmi_wasi::{
    Error, WasiDir, WasiFile,
    wasi_common::{
        ErrorExt,
        dir::{OpenResult, ReaddirCursor, ReaddirEntity},
        file::{Advice, FdFlags, FileType, Filestat, OFlags},
    },
};

/// A directory, and all that is opened below it, without what changes it.
pub(super) struct ReadOnly<T: ?Sized>(pub Box<T>);

type Entries = Box<dyn Iterator<Item = Result<ReaddirEntity, Error>> + Send>;

/// What is not listed here is refused: that is what the trait's own functions do.
#[async_trait::async_trait]
impl WasiDir for ReadOnly<dyn WasiDir> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    async fn open_file(
        &self,
        follow: bool,
        path: &str,
        how: OFlags,
        read: bool,
        write: bool,
        flags: FdFlags,
    ) -> Result<OpenResult, Error> {
        let changes = OFlags::CREATE | OFlags::EXCLUSIVE | OFlags::TRUNCATE;
        if write || how.intersects(changes) || flags.contains(FdFlags::APPEND) {
            return Err(Error::perm());
        }
        Ok(match self.0.open_file(follow, path, how, read, write, flags).await? {
            OpenResult::File(file) => OpenResult::File(Box::new(ReadOnly(file))),
            OpenResult::Dir(dir) => OpenResult::Dir(Box::new(ReadOnly(dir))),
        })
    }

    async fn readdir(&self, cursor: ReaddirCursor) -> Result<Entries, Error> {
        self.0.readdir(cursor).await
    }

    async fn read_link(&self, path: &str) -> Result<PathBuf, Error> {
        self.0.read_link(path).await
    }

    async fn get_filestat(&self) -> Result<Filestat, Error> {
        self.0.get_filestat().await
    }

    async fn get_path_filestat(&self, path: &str, follow: bool) -> Result<Filestat, Error> {
        self.0.get_path_filestat(path, follow).await
    }

    async fn create_dir(&self, _: &str) -> Result<(), Error> {
        Err(Error::perm())
    }

    async fn symlink(&self, _: &str, _: &str) -> Result<(), Error> {
        Err(Error::perm())
    }

    async fn remove_dir(&self, _: &str) -> Result<(), Error> {
        Err(Error::perm())
    }

    async fn unlink_file(&self, _: &str) -> Result<(), Error> {
        Err(Error::perm())
    }

    async fn rename(&self, _: &str, _: &dyn WasiDir, _: &str) -> Result<(), Error> {
        Err(Error::perm())
    }

    async fn hard_link(&self, _: &str, _: &dyn WasiDir, _: &str) -> Result<(), Error> {
        Err(Error::perm())
    }
}

/// A file that was opened to be read. The owner of a file could otherwise still change its times.
#[async_trait::async_trait]
impl WasiFile for ReadOnly<dyn WasiFile> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    async fn get_filetype(&self) -> Result<FileType, Error> {
        self.0.get_filetype().await
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.0.pollable()
    }

    fn isatty(&self) -> bool {
        self.0.isatty()
    }

    async fn get_fdflags(&self) -> Result<FdFlags, Error> {
        self.0.get_fdflags().await
    }

    async fn get_filestat(&self) -> Result<Filestat, Error> {
        self.0.get_filestat().await
    }

    async fn advise(&self, offset: u64, length: u64, advice: Advice) -> Result<(), Error> {
        self.0.advise(offset, length, advice).await
    }

    async fn read_vectored<'a>(&self, buffers: &mut [IoSliceMut<'a>]) -> Result<u64, Error> {
        self.0.read_vectored(buffers).await
    }

    async fn read_vectored_at<'a>(&self, buffers: &mut [IoSliceMut<'a>], offset: u64) -> Result<u64, Error> {
        self.0.read_vectored_at(buffers, offset).await
    }

    async fn seek(&self, to: SeekFrom) -> Result<u64, Error> {
        self.0.seek(to).await
    }

    async fn peek(&self, buffer: &mut [u8]) -> Result<u64, Error> {
        self.0.peek(buffer).await
    }

    fn num_ready_bytes(&self) -> Result<u64, Error> {
        self.0.num_ready_bytes()
    }

    async fn readable(&self) -> Result<(), Error> {
        self.0.readable().await
    }
}
