// Takes a cluster down and checks that nothing of it is left.
//
// Works from the registry file and the cluster's random id alone, so it does not matter which
// parts have crashed or were never started. Repeating it is harmless. Logs stay.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// state lists what an instance keeps in its folder besides its logs. The folder may be the
// user's own, so nothing else in it is touched.
var state = []string{
	"pki", "commands", "etcd", "node", "s3", "s3.json", "aggregated.json", "containerd.sock", "containerd.sock.ttrpc", "audit-policy.yaml", "kind-config.yaml", clusterFile,
	"admin.kubeconfig", "controller-manager.kubeconfig", "scheduler.kubeconfig", "node.kubeconfig", "proxy.kubeconfig",
	"aggregated-client.kubeconfig", "webhook.kubeconfig", "admission.json", "webhooks.json",
}

func down(name string) error {
	held, err := lock("cluster-" + name)
	if err != nil {
		return err
	}
	defer held.Close()
	i, err := find(name)
	if err != nil {
		return err
	}
	if i == nil {
		say("cluster %s is not up", name)
		return nil
	}
	begin := time.Now()
	if err := teardown(i); err != nil {
		return err
	}
	say("cluster %s is down after %s; its logs stay in %s", name, time.Since(begin).Round(10*time.Millisecond), i.LogDir)
	return nil
}

// teardown removes everything of the instance. The registry file goes last: until then a second
// attempt finds what is left.
func teardown(i *instance) error {
	if i.Node && i.Backend == backendProcesses && os.Geteuid() != 0 {
		return fmt.Errorf("cluster %s has a node: only root can take it down", i.Name)
	}
	if i.Backend == backendKind {
		if err := kindDown(i); err != nil {
			return err
		}
	}
	if err := kill(i.ID, everyProcess); err != nil {
		return fmt.Errorf("cluster %s: %w", i.Name, err)
	}
	if i.Node && i.Backend == backendProcesses {
		if err := errors.Join(i.removeCgroups(), i.removeLink(), i.removeMounts()); err != nil {
			return fmt.Errorf("cluster %s: %w", i.Name, err)
		}
	}
	for _, name := range append(state, instanceFile) {
		if err := os.RemoveAll(i.path(name)); err != nil {
			return err
		}
	}
	return os.Remove(registryFile(i.Name))
}

// removeLink waits for the kernel to remove the link along with the node's network namespace, and
// removes it when the node never came that far.
func (i *instance) removeLink() error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		if _, err := net.InterfaceByName(i.link()); err != nil {
			return nil
		}
		if _, err := run(context.Background(), "ip", "link", "delete", i.link()); err == nil {
			continue
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("link %s does not go away", i.link())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// removeMounts unmounts what lies below the instance's folder in the host's own mount namespace.
// The node mounts in its own, so there should be none.
func (i *instance) removeMounts() error {
	mounts, err := mountsBelow(i.Dir)
	if err != nil {
		return err
	}
	sort.Sort(sort.Reverse(sort.StringSlice(mounts)))
	for _, mount := range mounts {
		if err := syscall.Unmount(mount, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
			return fmt.Errorf("unmount %s: %w", mount, err)
		}
	}
	return nil
}

func mountsBelow(dir string) ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, line := range strings.Split(string(text), "\n") {
		fields := strings.Fields(line)
		if len(fields) > 4 && strings.HasPrefix(unescapeMount(fields[4]), dir+"/") {
			found = append(found, unescapeMount(fields[4]))
		}
	}
	return found, nil
}

// unescapeMount undoes the octal escapes of mountinfo.
func unescapeMount(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}

// removeCgroups ends whatever is left in the instance's own cgroups, and removes them.
func (i *instance) removeCgroups() error {
	folders, err := i.cgroupFolders()
	if err != nil {
		return err
	}
	for _, folder := range folders {
		if err := removeCgroup(folder); err != nil {
			return err
		}
	}
	return nil
}

func removeCgroup(folder string) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		var groups []string
		err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				groups = append(groups, path)
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
		if err != nil {
			return err
		}
		if len(groups) == 0 {
			return nil
		}
		for n := len(groups) - 1; n >= 0; n-- { // children before parents
			endMembers(groups[n])
			err = syscall.Rmdir(groups[n])
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && time.Now().After(deadline) {
			return fmt.Errorf("cgroup %s does not go away: %w", folder, err)
		}
		if err != nil {
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// endMembers kills the processes of a cgroup of the instance. Being in it is what makes them ours.
func endMembers(group string) {
	members, err := os.ReadFile(filepath.Join(group, "cgroup.procs"))
	if err != nil {
		return
	}
	for _, member := range strings.Fields(string(members)) {
		pid, err := strconv.Atoi(member)
		if err != nil || pid <= 1 {
			continue
		}
		handle, err := os.FindProcess(pid)
		if err != nil {
			continue
		}
		again, err := os.ReadFile(filepath.Join(group, "cgroup.procs"))
		if err == nil && strings.Contains("\n"+string(again), "\n"+member+"\n") {
			if err := handle.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				say("end process %d in %s: %v", pid, group, err)
			}
		}
		if err := handle.Release(); err != nil {
			say("process %d: %v", pid, err)
		}
	}
}
