//go:build !linux

package localdb

// memoryDir returns "": only Linux is known to have a directory in memory.
func memoryDir() string { return "" }
