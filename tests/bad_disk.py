"""A disk that is bad in one way, as a file under a mount point: `bad_disk.py MOUNT BACKING FAULT`.

Faults: `slow=BYTES` a second; `fails=OFFSET` a write there or in the next 8 MiB gives EIO (the loop driver takes a
request of which only the end failed for a success, so a place of one sector would not be noticed); `lies=BYTES` it keeps
so many and wraps; `flips=OFFSET` the byte there reads back with one bit changed; `vanishes=BYTES` every call after so many
written bytes gives EIO. It ends when it is unmounted.
"""

import errno
import os
import stat
import sys
import threading
import time

from fusepy import FUSE, FuseOSError, Operations


class Disk(Operations):
    def __init__(self, backing, fault):
        self.fd = os.open(backing, os.O_RDWR)
        self.size = os.fstat(self.fd).st_size
        self.kind, _, number = fault.partition("=")
        self.number = int(number or 0)
        self.written = 0
        self.mutex = threading.Lock()

    def getattr(self, path, fh=None):
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        if path == "/disk":
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": self.size}
        raise FuseOSError(errno.ENOENT)

    def readdir(self, path, fh):
        return [".", "..", "disk"]

    def place(self, offset):
        return offset % self.number if self.kind == "lies" else offset

    def gone(self):
        if self.kind == "vanishes" and self.written > self.number:
            raise FuseOSError(errno.EIO)

    def read(self, path, size, offset, fh):
        self.gone()
        data = bytearray(os.pread(self.fd, size, self.place(offset)))
        if self.kind == "flips" and offset <= self.number < offset + len(data):
            data[self.number - offset] ^= 4
        return bytes(data)

    def write(self, path, data, offset, fh):
        with self.mutex:
            self.gone()
            if self.kind == "fails" and self.number - len(data) < offset < self.number + (8 << 20):
                raise FuseOSError(errno.EIO)
            if self.kind == "slow":
                time.sleep(len(data) / self.number)
            self.written += len(data)
            return os.pwrite(self.fd, data, self.place(offset))

    def truncate(self, path, length, fh=None):
        return 0

    def fsync(self, path, datasync, fh):
        self.gone()
        return 0


FUSE(Disk(sys.argv[2], sys.argv[3]), sys.argv[1], foreground=True, nothreads=False, big_writes=True, max_read=131072)
