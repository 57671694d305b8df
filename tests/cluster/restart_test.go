// Restarts parts of real clusters and checks that they are the same parts again, that pods outlive
// it, and that `down` finds everything afterwards.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// commandLines maps the process id of each part to its command line.
func commandLines(t *testing.T, i *instance) map[string]string {
	t.Helper()
	found := map[string]string{}
	alive, err := components(i.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range i.expected() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", alive[part]))
		if err != nil {
			t.Fatalf("%s: %v", part, err)
		}
		found[part] = fmt.Sprintf("%d %s", alive[part], strings.ReplaceAll(string(text), "\x00", " "))
	}
	return found
}

// expectRestarted: other processes with the same command lines, the first process of the node aside.
func expectRestarted(t *testing.T, before, after map[string]string) {
	t.Helper()
	for part, line := range before {
		pid, words, _ := strings.Cut(line, " ")
		again, same, _ := strings.Cut(after[part], " ")
		if words != same {
			t.Errorf("%s ran as %q and runs as %q", part, words, same)
		}
		if (pid == again) != (part == "node") {
			t.Errorf("%s was process %s and is process %s", part, pid, again)
		}
	}
}

func TestEveryPartIsRestartedAsItWasAndPodsOutliveIt(t *testing.T) {
	needsRoot(t)
	name := fmt.Sprintf("again-%d", os.Getpid())
	clean := observe(t, name)
	i := boots(t, upOptions{name: name, apiServerFlags: []string{"--v=1"}})
	run := []string{"--image=" + tinyImage, "--image-pull-policy=Never", "--restart=Never", "--command", "--", "sleep", "2147483647"}
	mustKubectl(t, i, append([]string{"run", "old"}, run...)...)
	mustKubectl(t, i, "wait", "--for=condition=Ready", "pod/old", "--timeout=60s")
	started := mustKubectl(t, i, "get", "pod", "old", "-o", "jsonpath={.status.containerStatuses[0].containerID}")
	for _, together := range []bool{false, true} {
		before := commandLines(t, i)
		if err := restart(t.Context(), name, nil, together); err != nil {
			t.Fatalf("together %t: %v", together, err)
		}
		expectRestarted(t, before, commandLines(t, i))
		fresh := fmt.Sprintf("fresh-%t", together)
		mustKubectl(t, i, append([]string{"run", fresh}, run...)...)
		mustKubectl(t, i, "wait", "--for=condition=Ready", "pod/"+fresh, "--timeout=60s")
		mustKubectl(t, i, "exec", "old", "--", "true")
	}
	if now := mustKubectl(t, i, "get", "pod", "old", "-o", "jsonpath={.status.containerStatuses[0].containerID}"); now != started {
		t.Errorf("the pod's container was %s and is %s", started, now)
	}
	if missing := i.status(t.Context()).Missing; len(missing) > 0 {
		t.Errorf("status misses %v", missing)
	}
	if err := down(name); err != nil {
		t.Fatal(err)
	}
	expectClean(t, clean, name)
}

func TestAPartThatHangsOrHasDiedIsRestartedAndOthersAreLeftAlone(t *testing.T) {
	name := fmt.Sprintf("hang-%d", os.Getpid())
	i := boots(t, upOptions{name: name, controlPlaneOnly: true})
	before := commandLines(t, i)
	alive, err := components(i.ID)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		signalOne(alive["kube-scheduler"], i.ID, syscall.SIGSTOP), // it cannot hear a request to end
		signalOne(alive["etcd"], i.ID, syscall.SIGKILL),
	)
	if err != nil {
		t.Fatal(err)
	}
	if err := restart(t.Context(), name, []string{"kube-scheduler", "etcd"}, false); err != nil {
		t.Fatal(err)
	}
	after := commandLines(t, i)
	for _, part := range []string{"kube-apiserver", "kube-controller-manager"} {
		if before[part] != after[part] {
			t.Errorf("%s was %q and is %q", part, before[part], after[part])
		}
		delete(before, part)
	}
	expectRestarted(t, before, after)
}

func TestWhatIsNoPartIsNotRestarted(t *testing.T) {
	i := &instance{Node: false}
	if _, err := i.chooseParts([]string{"kubelet"}); err == nil || !strings.Contains(err.Error(), "kube-scheduler") {
		t.Errorf("a kubelet in a cluster without a node: %v", err)
	}
	i.Node = true
	parts, err := i.chooseParts([]string{"kubelet", "etcd"})
	if err != nil || strings.Join(parts, " ") != "etcd kubelet" {
		t.Errorf("%v, %v: not in the order in which they need each other", parts, err)
	}
}
