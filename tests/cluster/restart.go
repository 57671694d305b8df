// Ends parts of a running cluster and starts them again with the very same command lines: the
// command `restart`.
//
// A part is asked to end, killed when it does not, started, and waited for until it serves; health.go
// knows when that is. Parts of the node are started by the node's own first process. Nothing here
// changes what a part is: flags, certificates and state stay as `up` made them.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// endLimit is how long a part may take to end by itself.
const endLimit = 10 * time.Second

// hostParts and nodeParts are what can be restarted, in the order in which they need each other.
var (
	hostParts = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}
	nodeParts = []string{"containerd", "kubelet", "kube-proxy"}
)

// A commandLine is how a process of the host was started.
type commandLine struct {
	Path        string   `json:"path"`
	Arguments   []string `json:"arguments"`
	Environment []string `json:"environment"`
}

// remember keeps how a component is started, for a restart.
func (i *instance) remember(name string, command *exec.Cmd) error {
	return writeJSON(i.path("commands", name+".json"), commandLine{command.Path, command.Args, command.Env}, 0o600)
}

func restart(ctx context.Context, name string, parts []string, together bool) error {
	held, err := lock("cluster-" + name)
	if err != nil {
		return err
	}
	defer held.Close()
	i, err := running(name)
	if err != nil {
		return err
	}
	if i.Backend != backendProcesses {
		return fmt.Errorf("cluster %s runs on %s: its parts cannot be restarted one by one", name, i.Backend)
	}
	if parts, err = i.chooseParts(parts); err != nil {
		return err
	}
	begin := time.Now()
	if together {
		err = i.restartTogether(ctx, parts)
	} else {
		for _, part := range parts {
			if err = errors.Join(err, i.end(part)); err == nil {
				err = i.startAgain(ctx, part)
			}
			if err != nil {
				break
			}
		}
	}
	if err != nil {
		return err
	}
	if err := i.awaitWhole(ctx, begin, parts); err != nil {
		return err
	}
	say("cluster %s is whole again after %s", name, time.Since(begin).Round(10*time.Millisecond))
	return nil
}

func (i *instance) restartTogether(ctx context.Context, parts []string) error {
	for n := len(parts) - 1; n >= 0; n-- {
		if err := i.end(parts[n]); err != nil {
			return err
		}
	}
	for _, part := range parts {
		if err := i.startAgain(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// chooseParts puts what was asked for in order; nothing asked for means every part.
func (i *instance) chooseParts(asked []string) ([]string, error) {
	there := slices.Clone(hostParts)
	if i.Node {
		there = append(there, nodeParts...)
	}
	for _, part := range asked {
		if !slices.Contains(there, part) {
			return nil, fmt.Errorf("no part %q in this cluster, only %s", part, strings.Join(there, ", "))
		}
	}
	if len(asked) == 0 {
		return there, nil
	}
	return slices.DeleteFunc(there, func(part string) bool { return !slices.Contains(asked, part) }), nil
}

// end asks a part to end and kills it when it does not. A part that does not run is fine.
func (i *instance) end(part string) error {
	line, err := i.commandOf(part)
	if err != nil {
		return err
	}
	if slices.Contains(nodeParts, part) {
		if err := writeFile(filepath.Join(requestFolder(i.Dir, "held"), part), nil, 0o600); err != nil {
			return err
		}
	}
	begin, last := time.Now(), 0
	for asked := syscall.Signal(0); ; time.Sleep(20 * time.Millisecond) {
		pid, err := i.mainProcess(part, line.Arguments)
		if err != nil {
			return err
		}
		if pid == 0 && isEnding(last) && time.Since(begin) < 2*endLimit {
			continue
		}
		last = pid
		signal := syscall.SIGTERM
		if time.Since(begin) > endLimit {
			signal = syscall.SIGKILL
		}
		switch {
		case pid == 0:
			say("%s ended after %s", part, time.Since(begin).Round(10*time.Millisecond))
			return nil
		case time.Since(begin) > 2*endLimit:
			return fmt.Errorf("%s (process %d) does not end", part, pid)
		case asked == signal:
			continue
		case signal == syscall.SIGKILL:
			say("%s does not end by itself: killing it", part)
		}
		if err := signalOne(pid, i.ID, signal); err != nil {
			return err
		}
		asked = signal
	}
}

// isEnding tells whether a process that is found no more has threads still, and with them its sockets:
// the kernel takes the memory away first, by which a process is found, and the files after it.
func isEnding(pid int) bool {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, fields, _ := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte{' '})
	return len(threads) > 1 || !(bytes.HasPrefix(fields, []byte("Z")) || bytes.HasPrefix(fields, []byte("X")))
}

// commandOf is how a part is started.
func (i *instance) commandOf(part string) (commandLine, error) {
	var line commandLine
	if slices.Contains(hostParts, part) {
		if err := readJSON(i.path("commands", part+".json"), &line); err != nil {
			return line, fmt.Errorf("how %s was started is not known: %w", part, err)
		}
		return line, nil
	}
	var node initConfig
	if err := readJSON(i.path("node", "init.json"), &node); err != nil {
		return line, err
	}
	for _, step := range node.Steps {
		for _, one := range step {
			if one.Name == part {
				return commandLine{Path: one.Arguments[0], Arguments: one.Arguments}, nil
			}
		}
	}
	return line, fmt.Errorf("the node knows no %s", part)
}

// mainProcess finds the process of a part by its whole command line: what it has started itself
// inherits the marks, and may outlive it. 0 means that it does not run.
func (i *instance) mainProcess(part string, arguments []string) (int, error) {
	all, err := processes(i.ID)
	if err != nil {
		return 0, err
	}
	expected := []byte(strings.Join(arguments, "\x00") + "\x00")
	for _, one := range all {
		if one.Component != part {
			continue
		}
		found, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", one.PID))
		if err == nil && bytes.Equal(found, expected) {
			return one.PID, nil
		}
	}
	return 0, nil
}

// startAgain starts a part that has ended, and waits until it serves.
func (i *instance) startAgain(ctx context.Context, part string) error {
	var watched []*component
	begin := time.Now()
	if slices.Contains(hostParts, part) {
		line, err := i.commandOf(part)
		if err != nil {
			return err
		}
		started, err := i.startCommand(part, &exec.Cmd{Path: line.Path, Args: line.Arguments, Env: line.Environment})
		if err != nil {
			return err
		}
		watched = append(watched, started)
	} else if err := i.askNode(part); err != nil {
		return err
	}
	err := await(ctx, part, time.Minute, watched, func() error { return i.healthy(ctx, part) })
	if err != nil {
		return fmt.Errorf("%w\n%s", err, logTail(filepath.Join(i.LogDir, part+".log")))
	}
	say("%s serves after %s", part, time.Since(begin).Round(10*time.Millisecond))
	return nil
}

// askNode has the node's first process start a program again.
func (i *instance) askNode(part string) error {
	if text, err := os.ReadFile(i.path("node", "ended")); err == nil && strings.HasPrefix(string(text), part+" ") {
		if err := os.Remove(i.path("node", "ended")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	wanted := filepath.Join(requestFolder(i.Dir, "wanted"), part)
	if err := os.MkdirAll(filepath.Dir(wanted), 0o755); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(requestFolder(i.Dir, "held"), part), wanted); err != nil {
		return err
	}
	alive, err := components(i.ID)
	if err != nil {
		return err
	}
	if alive["node"] == 0 {
		return fmt.Errorf("the node of cluster %s has ended: take the cluster down and up", i.Name)
	}
	return signalOne(alive["node"], i.ID, syscall.SIGHUP)
}
