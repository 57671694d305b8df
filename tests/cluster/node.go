// The node, seen from the host: one process tree in namespaces of its own, and one link to it.
//
// containerd, kubelet, kube-proxy and every container live in a PID, mount, network, IPC and UTS
// namespace whose first process is this program (node_init.go). When that process dies, for
// whatever reason, the kernel ends the rest: processes, mounts, links, iptables rules. What
// remains on the host is empty cgroups, which down.go removes. Two nodes never see each other.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const tinyImage = "local/tiny:1"

// A node is the started but not yet released first process of the node's namespaces.
type node struct {
	init    *component
	release *os.File // one line per step; closing it early ends the node
	pid     int
}

// cniFolders are where distributions put the CNI plugins.
var cniFolders = []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"}

// nodePrograms are what a node needs from the distribution's packages.
var nodePrograms = []string{"containerd", "ctr", "runc", "ip", "iptables", "busybox"}

// missingPrograms says what system-packages.sh would have to install.
func missingPrograms() []string {
	var missing []string
	for _, name := range nodePrograms {
		if _, err := lookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if _, err := cniFolder(); err != nil {
		missing = append(missing, "CNI plugins")
	}
	return missing
}

func lookPath(name string) (string, error) {
	for _, dir := range filepath.SplitList(searchPath()) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed", name)
}

func cniFolder() (string, error) {
	for _, dir := range cniFolders {
		complete := true
		for _, plugin := range []string{"bridge", "host-local", "loopback"} {
			_, err := os.Stat(filepath.Join(dir, plugin))
			complete = complete && err == nil
		}
		if complete {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no CNI plugins in %s", strings.Join(cniFolders, ", "))
}

// systemPackages installs what a node needs, or says clearly what is missing.
func systemPackages(ctx context.Context) error {
	missing := missingPrograms()
	if len(missing) == 0 {
		return nil
	}
	source, err := sourceDir()
	if err != nil {
		return err
	}
	say("missing: %s; installing the packages", strings.Join(missing, ", "))
	command := exec.CommandContext(ctx, "sh", filepath.Join(source, "system-packages.sh"))
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	if err := command.Run(); err != nil {
		return fmt.Errorf("system packages: %w", err)
	}
	if missing := missingPrograms(); len(missing) > 0 {
		return fmt.Errorf("still missing after installing the packages: %s", strings.Join(missing, ", "))
	}
	return nil
}

// openNode makes the namespaces and the link, so that the host's end of it has its address before
// the API server binds there. Nothing runs in the node yet.
func (i *instance) openNode(ctx context.Context, hyperkube string) (*node, error) {
	if err := i.makeCgroups(); err != nil {
		return nil, err
	}
	if err := i.writeNodeConfig(hyperkube); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	command := exec.Command(self, nodeInitCommand, i.path("node", "init.json"))
	command.Env = environment(i.ID, "node", i.Dir)
	command.ExtraFiles = []*os.File{reader}
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
	started, err := i.startCommand("node", command)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the node's namespaces: %w", err), writer.Close())
	}
	opened := &node{init: started, release: writer, pid: command.Process.Pid}
	return opened, i.connect(ctx, opened)
}

// connect makes the link between host and node and routes the cluster's addresses over it.
func (i *instance) connect(ctx context.Context, n *node) error {
	steps := [][]string{
		{"link", "add", i.link(), "type", "veth", "peer", "name", nodeLink, "netns", strconv.Itoa(n.pid)},
		{"address", "add", i.hostIP() + "/30", "dev", i.link()},
		{"link", "set", i.link(), "up"},
		// Pods and Services: all of the block goes to the node, which refuses what nobody answers.
		{"route", "add", i.address(0, 0) + "/16", "via", i.nodeIP(), "dev", i.link()},
	}
	for _, step := range steps {
		if _, err := run(ctx, "ip", step...); err != nil {
			return err
		}
	}
	return n.step("linked")
}

// step lets the node's first process take its next step.
func (n *node) step(name string) error {
	_, err := fmt.Fprintln(n.release, name)
	return err
}

// startNode releases the node and waits until its container runtime answers and has the image.
func (i *instance) startNode(ctx context.Context, n *node) error {
	if err := n.step("start"); err != nil {
		return err
	}
	err := await(ctx, "the container runtime", 2*time.Minute, []*component{n.init}, func() error {
		if err := i.nodeFailure(); err != nil {
			return err
		}
		_, err := i.ctr(ctx, "version")
		return err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, logTail(filepath.Join(i.LogDir, "containerd.log")))
	}
	if err := i.loadTinyImage(ctx); err != nil {
		return err
	}
	// The kubelet starts only now: its first act is the sandbox image's.
	return errors.Join(n.step("image"), n.release.Close())
}

// nodeFailure reports a program of the node that ended, with its log.
func (i *instance) nodeFailure() error {
	text, err := os.ReadFile(i.path("node", "ended"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	name, how, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	return fmt.Errorf("%s ended: %s\n%s", name, how, logTail(filepath.Join(i.LogDir, name+".log")))
}

func (i *instance) containerdSocket() string { return i.path("containerd.sock") }

// ctr runs containerd's client as a process of the instance: when this program is killed while it
// runs, `down` ends it.
func (i *instance) ctr(ctx context.Context, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, i.runtimeProgram("ctr"), append([]string{"-a", i.containerdSocket(), "-n", "k8s.io"}, arguments...)...)
	command.Env = environment(i.ID, "ctr", i.Dir)
	return output(command)
}

// runtimeProgram is the path of a program of the container runtime.
func (i *instance) runtimeProgram(name string) string {
	if i.Runtime == "" {
		return resolve(name)
	}
	return filepath.Join(i.Runtime, name)
}

// unifiedRoot is the root of a cgroup v2 hierarchy.
const unifiedRoot = "/sys/fs/cgroup"

// cgroupFolders lists the cgroup root of the instance in every hierarchy of this host: one on
// cgroup v2, one per controller on v1.
func (i *instance) cgroupFolders() ([]string, error) {
	if unified() {
		return []string{filepath.Join(unifiedRoot, i.cgroup())}, nil
	}
	entries, err := os.ReadDir(unifiedRoot)
	if err != nil {
		return nil, fmt.Errorf("no cgroups on this host: %w", err)
	}
	var folders []string
	for _, entry := range entries {
		if entry.IsDir() { // links such as cpu -> cpu,cpuacct are left out
			folders = append(folders, filepath.Join(unifiedRoot, entry.Name(), i.cgroup()))
		}
	}
	return folders, nil
}

func unified() bool {
	_, err := os.Stat(filepath.Join(unifiedRoot, "cgroup.controllers"))
	return err == nil
}

// delegate hands the controllers that the kubelet insists on down from the v2 root. They stay on
// afterwards: other users of the host may rely on them by then.
func delegate() error {
	available, err := os.ReadFile(filepath.Join(unifiedRoot, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(available)) {
		switch controller {
		case "cpu", "cpuset", "memory", "pids", "hugetlb":
			if err := os.WriteFile(filepath.Join(unifiedRoot, "cgroup.subtree_control"), []byte("+"+controller), 0o644); err != nil {
				return fmt.Errorf("enable cgroup controller %s: %w", controller, err)
			}
		}
	}
	return nil
}

func (i *instance) makeCgroups() error {
	if unified() {
		if err := delegate(); err != nil {
			return err
		}
	}
	folders, err := i.cgroupFolders()
	if err != nil {
		return err
	}
	for _, folder := range folders {
		if err := os.Mkdir(folder, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// writeNodeConfig writes the configuration of every program of the node.
func (i *instance) writeNodeConfig(hyperkube string) error {
	cni, err := cniFolder()
	if err != nil {
		return err
	}
	files := map[string]any{
		"init.json":           i.nodeInitConfig(hyperkube),
		"kubelet.json":        i.kubeletConfig(),
		"kube-proxy.json":     i.proxyConfig(),
		"cni/10-net.conflist": i.networkConfig(),
	}
	for name, value := range files {
		if err := writeJSON(i.path("node", name), value, 0o600); err != nil {
			return err
		}
	}
	return writeFile(i.path("node", "containerd.toml"), []byte(i.containerdConfig(cni)), 0o600)
}

type object = map[string]any

func (i *instance) kubeletConfig() object {
	return object{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"authentication": object{
			"anonymous": object{"enabled": false}, "webhook": object{"enabled": true},
			"x509": object{"clientCAFile": i.pki("ca.crt")},
		},
		"authorization": object{"mode": "Webhook"},
		"tlsCertFile":   i.pki("kubelet.crt"), "tlsPrivateKeyFile": i.pki("kubelet.key"),
		"address": i.nodeIP(), "port": 10250, "readOnlyPort": 0, "healthzPort": 0,
		"containerRuntimeEndpoint": "unix://" + i.containerdSocket(),
		"cgroupDriver":             "cgroupfs", "cgroupRoot": "/" + i.cgroup(), "cgroupsPerQOS": true,
		"failCgroupV1": false, "failSwapOn": false,
		"enforceNodeAllocatable": []string{}, "localStorageCapacityIsolation": false,
		"evictionHard":                object{"memory.available": "1Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
		"imageGCHighThresholdPercent": 100, // a loaded image cannot be pulled again
		"volumePluginDir":             i.path("node", "volume-plugins"),
		"resolvConf":                  "", // there is no cluster DNS
		"oomScoreAdj":                 0,  // lowering it needs CAP_SYS_RESOURCE
		"registerNode":                true,
	}
}

func (i *instance) proxyConfig() object {
	return object{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
		"mode": "iptables", "clusterCIDR": i.podCIDR(), "hostnameOverride": i.nodeName(),
		"clientConnection":   object{"kubeconfig": i.path("proxy.kubeconfig")},
		"conntrack":          object{"maxPerCore": 0, "min": 0}, // host-wide settings stay as they are
		"healthzBindAddress": i.nodeIP() + ":10256", "metricsBindAddress": "127.0.0.1:10249",
		"oomScoreAdj": 0,
	}
}

func (i *instance) networkConfig() object {
	return object{
		"cniVersion": "0.4.0", "name": "net",
		"plugins": []object{{
			"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
			"ipam": object{
				"type": "host-local", "dataDir": i.path("node", "cni-data"),
				"ranges": [][]object{{{"subnet": i.podCIDR()}}}, "routes": []object{{"dst": "0.0.0.0/0"}},
			},
		}},
	}
}

func (i *instance) containerdConfig(cni string) string {
	return fmt.Sprintf(`version = 2
root = %q
state = %q
[grpc]
  address = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
    conf_dir = %q
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = %q
`, i.path("node", "containerd"), i.path("node", "containerd-run"), i.containerdSocket(), tinyImage, cni, i.path("node", "cni"), i.snapshotter())
}

// snapshotter is overlayfs, unless the folder itself lies on an overlay (as inside a container),
// where the kernel refuses another one on top.
func (i *instance) snapshotter() string {
	const overlay = 0x794c7630
	var stat syscall.Statfs_t
	if err := syscall.Statfs(i.Dir, &stat); err == nil && int64(stat.Type) == overlay {
		return "native"
	}
	return "overlayfs"
}
