// The node, seen from inside: the first process of its namespaces.
//
// Sets up mounts and network, starts containerd, kubelet and kube-proxy one after the other as
// the host releases each step, and then only watches over them (node_supervise.go). When it dies
// the kernel ends everything below it. A host that disappears before the last step closes the
// pipe, and the node ends itself.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	nodeInitCommand = "node-init"
	// nodeLink is the node's end of the link to the host.
	nodeLink = "eth0"
)

// initConfig is what the first process needs to know.
type initConfig struct {
	ID          string      `json:"id"`
	Dir         string      `json:"dir"`
	LogDir      string      `json:"log_dir"`
	NodeName    string      `json:"node_name"`
	NodeIP      string      `json:"node_ip"`
	ServiceCIDR string      `json:"service_cidr"`
	Steps       [][]program `json:"steps"` // what to start at each release
}

// A program is one thing that runs in the node.
type program struct {
	Name      string   `json:"name"`
	Arguments []string `json:"arguments"`
}

func (i *instance) nodeInitConfig(hyperkube string) initConfig {
	return initConfig{
		ID: i.ID, Dir: i.Dir, LogDir: i.LogDir, NodeName: i.nodeName(), NodeIP: i.nodeIP(), ServiceCIDR: i.serviceCIDR(),
		Steps: [][]program{
			{{"containerd", []string{i.runtimeProgram("containerd"), "--config", i.path("node", "containerd.toml")}}},
			{
				{"kubelet", []string{hyperkube, "kubelet", "--config=" + i.path("node", "kubelet.json"), "--kubeconfig=" + i.path("node.kubeconfig"),
					"--hostname-override=" + i.nodeName(), "--node-ip=" + i.nodeIP(), "--root-dir=" + i.path("node", "kubelet"), "--cert-dir=" + i.path("node", "kubelet-pki")}},
				{"kube-proxy", []string{hyperkube, "kube-proxy", "--config=" + i.path("node", "kube-proxy.json")}},
			},
		},
	}
}

// nodeInit is the whole life of the first process; its return value is the exit code.
func nodeInit(arguments []string) int {
	if os.Getpid() != 1 || len(arguments) != 1 {
		fmt.Fprintf(os.Stderr, "%s is started by `up` only\n", nodeInitCommand)
		return 2
	}
	var c initConfig
	if err := readJSON(arguments[0], &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := c.boot(bufio.NewReader(os.NewFile(3, "release"))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (c initConfig) boot(release *bufio.Reader) error {
	if err := c.isolateMounts(); err != nil {
		return fmt.Errorf("mounts of the node: %w", err)
	}
	if err := syscall.Sethostname([]byte(c.NodeName)); err != nil {
		return fmt.Errorf("host name of the node: %w", err)
	}
	if err := awaitStep(release); err != nil {
		return err
	}
	if err := c.configureNetwork(); err != nil {
		return fmt.Errorf("network of the node: %w", err)
	}
	s := supervise(c)
	for _, step := range c.Steps {
		if err := awaitStep(release); err != nil {
			return err
		}
		for _, one := range step {
			if err := s.launch(one); err != nil {
				return err
			}
		}
	}
	return s.collect()
}

func awaitStep(release *bufio.Reader) error {
	if _, err := release.ReadString('\n'); err != nil {
		return fmt.Errorf("the host went away before the node was released: %w", err)
	}
	return nil
}

// isolateMounts gives the node its own /proc, and its own copies of the folders in which kubelet,
// containerd, its shims and the CNI plugins keep state under fixed paths.
func (c initConfig) isolateMounts() error {
	// Nothing mounted here may reach the host; within the node mounts propagate, as kubelet expects.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""); err != nil {
		return err
	}
	if err := syscall.Mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=0755"); err != nil {
		return err
	}
	for _, folder := range []string{"/var/lib", "/var/log"} {
		own := filepath.Join(c.Dir, "node", strings.ReplaceAll(folder[1:], "/", "-"))
		if err := os.MkdirAll(own, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount(own, folder, "", syscall.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

func (c initConfig) configureNetwork() error {
	service := c.ServiceCIDR
	steps := [][]string{
		{"ip", "link", "set", "lo", "up"},
		{"ip", "address", "add", c.NodeIP + "/30", "dev", nodeLink},
		{"ip", "link", "set", nodeLink, "up"},
		// A Service address must be routable for kube-proxy to rewrite it, also for pods on the
		// host network. What kube-proxy does not rewrite is refused and never leaves the node.
		{"ip", "route", "add", service, "dev", nodeLink},
		{"iptables", "-A", "OUTPUT", "-d", service, "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset"},
		{"iptables", "-A", "OUTPUT", "-d", service, "-j", "REJECT"},
		{"iptables", "-A", "FORWARD", "-d", service, "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset"},
		{"iptables", "-A", "FORWARD", "-d", service, "-j", "REJECT"},
	}
	for _, step := range steps {
		if _, err := run(context.Background(), step[0], step[1:]...); err != nil {
			return err
		}
	}
	// These settings belong to the node's own network namespace.
	for _, setting := range []string{"ip_forward=1", "conf/all/send_redirects=0", "conf/" + nodeLink + "/send_redirects=0"} {
		name, value, _ := strings.Cut(setting, "=")
		if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0o644); err != nil {
			return err
		}
	}
	return c.bridgeTraffic()
}

// bridgeTraffic makes kube-proxy's rules apply between pods of the one bridge. Where the kernel
// has no br_netfilter, kube-proxy masquerades everything instead, which has the same effect at
// the price of the pods' addresses.
func (c initConfig) bridgeTraffic() error {
	err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("1"), 0o644)
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	path := filepath.Join(c.Dir, "node", "kube-proxy.json")
	var config object
	if err := readJSON(path, &config); err != nil {
		return err
	}
	config["iptables"] = object{"masqueradeAll": true}
	return writeJSON(path, config, 0o600)
}

// launch starts a program without waiting for it; collect learns of its end.
func (c initConfig) launch(one program) (int, error) {
	path := one.Arguments[0]
	if !filepath.IsAbs(path) {
		var err error
		if path, err = lookPath(path); err != nil {
			return 0, err
		}
	}
	log, err := os.OpenFile(filepath.Join(c.LogDir, one.Name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	process, err := os.StartProcess(path, one.Arguments, &os.ProcAttr{
		Dir: c.Dir, Env: c.environment(one.Name, filepath.Dir(path)),
		Files: []*os.File{null, log, log}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, err
	}
	pid := process.Pid
	return pid, process.Release()
}

// environment puts a program's own folder first on its PATH: containerd must find the shim that
// was built with it, not the distribution's.
func (c initConfig) environment(name, folder string) []string {
	variables := environment(c.ID, name, c.Dir)
	for n, variable := range variables {
		if path, found := strings.CutPrefix(variable, "PATH="); found {
			variables[n] = "PATH=" + folder + ":" + path
		}
	}
	return variables
}
