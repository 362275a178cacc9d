package localdb

import "syscall"

const (
	inMemory = "/dev/shm"
	// memoryNeeded is free where a server is put in memory. Containers often have 64 MB there.
	memoryNeeded = 2 << 30
)

// memoryDir returns a directory in memory, or "" where there is no room.
func memoryDir() string {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(inMemory, &fs); err != nil || fs.Bavail*uint64(fs.Bsize) < memoryNeeded {
		return ""
	}
	return inMemory
}
