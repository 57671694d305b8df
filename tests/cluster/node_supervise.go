// Watches over the programs of the node: collects ended processes, starts a program again when the
// host asks for it, and writes down the end of one that should have stayed.
//
// The host asks with empty files and a SIGHUP: `held/NAME` says that the end of NAME is meant,
// `wanted/NAME` that it is to run again. So a request survives whichever side is slow.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
)

// A supervisor is what the node's first process does after it has set up the node.
type supervisor struct {
	config  initConfig
	wanting sync.Mutex // held while requests are looked through
	mutex   sync.Mutex
	running map[int]string // by process id
	started chan struct{}  // holds a token after something was started on request
}

// supervise begins to listen to the host.
func supervise(c initConfig) *supervisor {
	s := &supervisor{config: c, running: map[int]string{}, started: make(chan struct{}, 1)}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGHUP)
	go func() {
		for range asked {
			s.startWanted()
		}
	}()
	return s
}

// requestFolder is where the host puts its requests of one kind.
func requestFolder(dir, kind string) string { return filepath.Join(dir, "node", kind) }

// launch starts a program; its end cannot be collected before it is known here.
func (s *supervisor) launch(one program) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	pid, err := s.config.launch(one)
	if err != nil {
		return fmt.Errorf("start %s: %w", one.Name, err)
	}
	s.running[pid] = one.Name
	return nil
}

// startWanted starts what the host wants and does not run.
func (s *supervisor) startWanted() {
	s.wanting.Lock()
	defer s.wanting.Unlock()
	for _, step := range s.config.Steps {
		for _, one := range step {
			request := filepath.Join(requestFolder(s.config.Dir, "wanted"), one.Name)
			if !s.asked("wanted/"+one.Name) || s.runs(one.Name) {
				continue
			}
			err := os.Remove(request)
			if err == nil {
				err = s.launch(one)
			}
			if err != nil {
				s.tell(one.Name, err.Error())
			}
			select {
			case s.started <- struct{}{}:
			default: // it holds a token already
			}
		}
	}
}

func (s *supervisor) runs(name string) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, one := range s.running {
		if one == name {
			return true
		}
	}
	return false
}

// collect reaps every ended process of the node, orphans included. It never returns while anything
// runs or is to run again.
func (s *supervisor) collect() error {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.ECHILD) && s.asked("held/*", "wanted/*"):
			<-s.started
			continue
		case err != nil:
			return fmt.Errorf("nothing runs in the node any more: %w", err)
		}
		if name := s.ended(pid); name != "" {
			how := fmt.Sprintf("exit status %d", status.ExitStatus())
			if status.Signaled() {
				how = fmt.Sprintf("signal %s", status.Signal())
			}
			fmt.Fprintf(os.Stderr, "%s ended: %s\n", name, how)
			if !s.asked("held/"+name, "wanted/"+name) {
				s.tell(name, how)
			}
			s.startWanted()
		}
	}
}

// ended forgets a process and returns the name of the program that it was, if any.
func (s *supervisor) ended(pid int) string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	name := s.running[pid]
	delete(s.running, pid)
	return name
}

// asked says whether there is a request of one of these patterns.
func (s *supervisor) asked(patterns ...string) bool {
	for _, pattern := range patterns {
		found, err := fs.Glob(os.DirFS(filepath.Join(s.config.Dir, "node")), pattern)
		if err == nil && len(found) > 0 {
			return true
		}
	}
	return false
}

// tell leaves the end of a program for the host to find.
func (s *supervisor) tell(name, how string) {
	if err := writeFile(filepath.Join(s.config.Dir, "node", "ended"), []byte(name+" "+how+"\n"), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}
