// Breaks clusters in every way and checks that nothing is left on the machine.
//
// Looks at processes, mounts, links, network namespaces, cgroups, routes and iptables rules, before
// and after; clusters that other people run meanwhile are left out by their ids.
package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// machine is what a cluster could leave behind.
type machine struct {
	processes, mounts, links, namespaces, cgroups, routes, rules []string
}

// observe reads the machine, leaving out clusters that do not carry the test's name, and what is
// not about clusters at all.
func observe(t *testing.T, name string) machine {
	t.Helper()
	lines := func(program string, arguments ...string) []string {
		output, err := run(context.Background(), program, arguments...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(output), "\n")
	}
	var found machine
	foreign := map[string]bool{} // ids of clusters that other people run
	commandLines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range commandLines {
		commandLine, err := os.ReadFile(file)
		environ, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "environ"))
		if _, after, marked := strings.Cut(string(environ), markerVariable+"="); marked && !strings.Contains(string(environ), name) {
			id, _, _ := strings.Cut(after, "\x00")
			foreign[id] = true
			continue
		}
		words := strings.ReplaceAll(string(commandLine), "\x00", " ")
		for _, telling := range []string{"hyperkube", "containerd", "etcd", "versitygw", nodeInitCommand, "2147483647"} {
			if err == nil && strings.Contains(words, telling) {
				found.processes = append(found.processes, filepath.Dir(file)+" "+words)
				break
			}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	found.mounts = strings.Split(string(mounts), "\n")
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range interfaces {
		found.links = append(found.links, one.Name)
	}
	found.namespaces = lines("ip", "netns", "list")
	found.routes = lines("ip", "route", "show", "table", "all")
	if os.Geteuid() == 0 {
		for _, table := range []string{"filter", "nat", "mangle", "raw"} {
			found.rules = append(found.rules, lines("iptables", "-t", table, "-S")...)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/kustody-*", "/sys/fs/cgroup/*/kustody-*"} {
		groups, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found.cgroups = append(found.cgroups, groups...)
	}
	isForeign := func(line string) bool {
		for id := range foreign {
			if len(id) == 16 && (strings.Contains(line, id) || strings.Contains(line, "kst"+id[:8])) {
				return true
			}
		}
		return false
	}
	for _, list := range found.lists() {
		*list = slices.DeleteFunc(*list, isForeign)
		slices.Sort(*list)
	}
	return found
}

func (m *machine) lists() []*[]string {
	return []*[]string{&m.processes, &m.mounts, &m.links, &m.namespaces, &m.cgroups, &m.routes, &m.rules}
}

// left lists what is in after and not in before.
func left(before, after machine) []string {
	var extra []string
	for n, list := range after.lists() {
		for _, line := range *list {
			if !slices.Contains(*before.lists()[n], line) {
				extra = append(extra, line)
			}
		}
	}
	return extra
}

// expectClean fails the test when the machine does not look as before.
func expectClean(t *testing.T, before machine, name string) {
	t.Helper()
	var extra []string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if extra = left(before, observe(t, name)); len(extra) == 0 {
			return
		}
	}
	t.Errorf("left behind:\n  %s", strings.Join(extra, "\n  "))
}

// pods of the crash test: one plain, one with a process that left its session and ignores signals.
const stubbornPods = `
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec: {containers: [{name: c, image: "local/tiny:1", imagePullPolicy: Never}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stubborn}
spec:
  containers:
  - name: c
    image: local/tiny:1
    imagePullPolicy: Never
    command: [sh, -c, "trap '' TERM INT HUP; setsid sleep 2147483647 & while true; do sleep 1; done"]
    volumeMounts: [{name: scratch, mountPath: /scratch}]
  volumes: [{name: scratch, emptyDir: {medium: Memory}}]
`

func TestDownLeavesNothingBehindAfterPartsWereKilled(t *testing.T) {
	needsRoot(t)
	name := fmt.Sprintf("crash-%d", os.Getpid())
	before := observe(t, name)
	for round := range 3 {
		i := boots(t, upOptions{name: name, withS3: true})
		manifest := filepath.Join(t.TempDir(), "pods.yaml")
		if err := os.WriteFile(manifest, []byte(stubbornPods), 0o600); err != nil {
			t.Fatal(err)
		}
		mustKubectl(t, i, "apply", "-f", manifest)
		mustKubectl(t, i, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
		all, err := processes(i.ID)
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 { // the kindest crash: the first process of the node alone
			all = slices.DeleteFunc(all, func(one process) bool { return one.Component != "node" })
		}
		for _, one := range all {
			if round == 0 || rand.IntN(2) == 0 {
				t.Logf("round %d: kill -9 %s (%d)", round, one.Component, one.PID)
				if err := killOne(one.PID, i.ID); err != nil {
					t.Error(err)
				}
			}
		}
		if err := down(name); err != nil {
			t.Fatal(err)
		}
		expectClean(t, before, name)
	}
}

func TestAnInterruptedUpTakesDownWhatItStarted(t *testing.T) {
	needsRoot(t)
	name := fmt.Sprintf("interrupt-%d", os.Getpid())
	before := observe(t, name)
	if _, err := build(t.Context(), defaultRelease); err != nil {
		t.Fatal(err)
	}
	for _, after := range []time.Duration{100 * time.Millisecond, 700 * time.Millisecond, 2 * time.Second} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		err := up(ctx, upOptions{name: name, release: defaultRelease, backend: backendProcesses})
		cancel()
		if err == nil {
			t.Errorf("up was ready before %s: nothing was interrupted", after)
		}
		if i, err := find(name); err != nil || i != nil {
			t.Errorf("interrupted after %s: still registered (%v)", after, err)
		}
		expectClean(t, before, name)
	}
}

func TestAKilledUpIsCleanedByDown(t *testing.T) {
	needsRoot(t)
	name := fmt.Sprintf("killed-%d", os.Getpid())
	before := observe(t, name)
	program := filepath.Join(t.TempDir(), "cluster")
	if output, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	for _, after := range []time.Duration{300 * time.Millisecond, 1500 * time.Millisecond} {
		command := exec.Command(program, "up", "--name", name)
		command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after)
		if err := command.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = command.Wait()
		if err := down(name); err != nil {
			t.Fatal(err)
		}
		expectClean(t, before, name)
	}
}
