// Starting, finding and ending the processes of one cluster.
//
// Every process carries the cluster's random id in its environment, and what it starts inherits
// it. So a cluster's processes are found without pid files, after any crash, and a reused pid is
// never mistaken for one: the id is read again through the handle that gets the signal.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	markerVariable    = "KUSTODY_CLUSTER_INSTANCE"
	componentVariable = "KUSTODY_CLUSTER_COMPONENT"
)

// environment is what a process of the cluster sees. Nothing of the caller's environment is
// passed on: no proxy, no KUBECONFIG and no locale may change how a cluster behaves.
func environment(id, component, home string) []string {
	return []string{
		"PATH=" + searchPath(),
		"HOME=" + home,
		"LANG=C.UTF-8",
		markerVariable + "=" + id,
		componentVariable + "=" + component,
	}
}

// searchPath is PATH with the folders that a user's shell may lack: iptables, ip and runc live there.
func searchPath() string {
	return strings.Join([]string{os.Getenv("PATH"), "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}, ":")
}

// A component is a started process of the cluster.
type component struct {
	name string
	log  string
	exit chan error // receives the process's end, once
}

// start runs a program as a process of the cluster, detached from this one.
func (i *instance) start(name string, extra []string, program string, arguments ...string) (*component, error) {
	command := exec.Command(program, arguments...)
	command.Env = append(environment(i.ID, name, i.Dir), extra...)
	return i.startCommand(name, command)
}

func (i *instance) startCommand(name string, command *exec.Cmd) (*component, error) {
	logPath := filepath.Join(i.LogDir, name+".log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if err := i.remember(name, command); err != nil {
		return nil, err
	}
	command.Dir, command.Stdout, command.Stderr = i.Dir, log, log
	if command.SysProcAttr == nil {
		command.SysProcAttr = &syscall.SysProcAttr{}
	}
	command.SysProcAttr.Setsid = true // Ctrl-C in the terminal is for this program, not for the cluster
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	started := &component{name: name, log: logPath, exit: make(chan error, 1)}
	go func() {
		err := command.Wait()
		if err == nil {
			err = errors.New("exit status 0")
		}
		started.exit <- err
	}()
	return started, nil
}

// A process is a live process of a cluster.
type process struct {
	PID       int    `json:"pid"`
	Component string `json:"component"`
	parent    int
	program   string // as the kernel shortens it
}

// processes lists the live processes that carry the id. Zombies are not listed: they only wait
// for their parent.
func processes(id string) ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if one, ok := inspect(pid, id); ok {
			found = append(found, one)
		}
	}
	sort.Slice(found, func(a, b int) bool { return found[a].PID < found[b].PID })
	return found, nil
}

// inspect reads one process; a process that went away or is not ours to read is not ours.
func inspect(pid int, id string) (process, bool) {
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return process{}, false
	}
	one, marked := process{PID: pid}, false
	for _, entry := range bytes.Split(environ, []byte{0}) {
		name, value, _ := strings.Cut(string(entry), "=")
		switch name {
		case markerVariable:
			marked = value == id
		case componentVariable:
			one.Component = value
		}
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if !marked || err != nil {
		return process{}, false
	}
	// "pid (name with anything) state parent …"
	open, closed := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || closed < open {
		return process{}, false
	}
	one.program = string(stat[open+1 : closed])
	fields := strings.Fields(string(stat[closed+1:]))
	if len(fields) < 2 || fields[0] == "Z" || fields[0] == "X" {
		return process{}, false
	}
	one.parent, err = strconv.Atoi(fields[1])
	return one, err == nil
}

// shimProgram outlives containerd on purpose, as containers do, and is not it.
const shimProgram = "containerd-shim"

// components lists the main process of each component: the one whose parent is another component.
func components(id string) (map[string]int, error) {
	all, err := processes(id)
	if err != nil {
		return nil, err
	}
	of := map[int]string{}
	for _, one := range all {
		of[one.PID] = one.Component
	}
	found := map[string]int{}
	for _, one := range all {
		if of[one.parent] != one.Component && one.program != shimProgram {
			found[one.Component] = one.PID
		}
	}
	return found, nil
}

// kill ends every process of the cluster for which chosen says so, and waits until none is left.
func kill(id string, chosen func(process) bool) error {
	deadline := time.Now().Add(20 * time.Second)
	for empty := 0; empty < 2; { // two empty looks: a process between fork and exec shows no environment of its own
		all, err := processes(id)
		if err != nil {
			return err
		}
		left := 0
		for _, one := range all {
			if !chosen(one) {
				continue
			}
			left++
			if err := killOne(one.PID, id); err != nil {
				return err
			}
		}
		if left == 0 {
			empty++
		} else {
			empty = 0
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes did not end within 20 s", left)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

func killOne(pid int, id string) error { return signalOne(pid, id, syscall.SIGKILL) }

// signalOne signals through a pid file descriptor that was opened before the id is read again, so
// a reused pid cannot be hit.
func signalOne(pid int, id string, signal syscall.Signal) error {
	handle, err := os.FindProcess(pid)
	if err != nil {
		return nil // it is gone
	}
	defer func() { _ = handle.Release() }()
	if _, ours := inspect(pid, id); !ours {
		return nil
	}
	if err := handle.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s to process %d: %w", signal, pid, err)
	}
	return nil
}

func everyProcess(process) bool { return true }

// await calls ready until it says so. It gives up when a component ends, the time is over or the
// context is done, and then shows the end of the log that explains it.
func await(ctx context.Context, what string, limit time.Duration, watched []*component, ready func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		for _, one := range watched {
			select {
			case exit := <-one.exit:
				one.exit <- exit
				return fmt.Errorf("%s ended (%w) while waiting for %s\n%s", one.name, exit, what, logTail(one.log))
			default:
			}
		}
		if time.Now().After(deadline) {
			message := fmt.Sprintf("%s: not within %s: %v", what, limit, err)
			for _, one := range watched {
				message += "\n" + logTail(one.log)
			}
			return errors.New(message)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("interrupted while waiting for %s", what)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// logTail names a log file and shows its last lines.
func logTail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Sprintf("--- %s: %v", path, err)
	}
	return fmt.Sprintf("--- last lines of %s\n%s", path, lastLines(string(text), 12))
}

// run executes a short command and returns what it said when it fails.
func run(ctx context.Context, program string, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, resolve(program), arguments...)
	command.Env = append(os.Environ(), "PATH="+searchPath())
	return output(command)
}

// resolve finds a program also where a user's PATH does not reach.
func resolve(program string) string {
	if path, err := lookPath(program); err == nil {
		return path
	}
	return program
}

func output(command *exec.Cmd) (string, error) {
	text, err := command.CombinedOutput()
	if err != nil {
		return string(text), fmt.Errorf("%s: %w: %s", strings.Join(command.Args, " "), err, strings.TrimSpace(string(text)))
	}
	return string(text), nil
}
