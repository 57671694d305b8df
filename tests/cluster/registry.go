// Which clusters exist: one small file per cluster in the cache, and the locks around them.
//
// A cluster is registered before anything of it is started and forgotten after all of it is gone.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// cacheRoot is where built programs and, by default, cluster state live.
func cacheRoot() (string, error) {
	if root := os.Getenv("KUSTODY_CACHE"); root != "" {
		return filepath.Abs(root)
	}
	root, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder: set KUSTODY_CACHE: %w", err)
	}
	return filepath.Join(root, "kustody"), nil
}

func clustersDir() (string, error) {
	root, err := cacheRoot()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, "clusters")
	return dir, os.MkdirAll(dir, 0o755)
}

func registryFile(name string) string {
	dir, err := clustersDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, name+".json")
}

// registered names every cluster that is up or was left half way.
func registered() ([]string, error) {
	dir, err := clustersDir()
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	names := make([]string, 0, len(files))
	for _, file := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(file), ".json"))
	}
	return names, err
}

// find returns the registered instance, or nil when there is none.
func find(name string) (*instance, error) {
	if !namePattern.MatchString(name) {
		return nil, fmt.Errorf("cluster name %q: lower-case letters, digits and dashes, at most 30", name)
	}
	text, err := os.ReadFile(registryFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var i instance
	if err := json.Unmarshal(text, &i); err != nil {
		return nil, fmt.Errorf("%s: %w", registryFile(name), err)
	}
	if i.Name != name || len(i.ID) != 16 || !filepath.IsAbs(i.Dir) {
		return nil, fmt.Errorf("%s does not describe cluster %q", registryFile(name), name)
	}
	return &i, nil
}

// running is find for commands that need the cluster to be there.
func running(name string) (*instance, error) {
	i, err := find(name)
	if err == nil && i == nil {
		err = fmt.Errorf("no cluster named %q: start it with `up --name %s`", name, name)
	}
	return i, err
}

var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?$`)

// lock takes an exclusive lock on a file of the registry; closing the file releases it.
func lock(name string) (*os.File, error) {
	dir, err := clustersDir()
	if err != nil {
		return nil, err
	}
	return lockFile(filepath.Join(dir, "."+name+".lock"))
}

func lockFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
		}
	}
}
