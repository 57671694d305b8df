// What one cluster is on this machine: its name, folder, ports, address block and marker.
//
// Owns the layout of its folder and its address plan; registry.go knows which instances exist and
// allocation.go what is free. It starts and stops nothing.
package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	defaultName = "kustody"
	// instanceFile holds the instance inside its folder; its presence marks the folder as ours.
	instanceFile = "instance.json"
	// clusterFile is what tests and the demo read.
	clusterFile = "cluster.json"
)

// An instance is one cluster. It is written before anything is started, so that whatever happens
// afterwards `down` knows what belongs to it.
type instance struct {
	Name    string `json:"name"`
	ID      string `json:"id"` // 16 random hex digits: the marker of its processes, links and cgroups
	Dir     string `json:"dir"`
	Backend string `json:"backend"` // "processes" or "kind"
	Release string `json:"release"` // "1.35"
	Node    bool   `json:"node"`
	Block   int    `json:"block"` // second byte of its 10.x.0.0/16
	Ports   ports  `json:"ports"`
	LogDir  string `json:"log_dir"`
	Runtime string `json:"runtime"` // folder of the container runtime; "" for the distribution's
	// Whether the API server presents a client certificate to webhooks.
	WebhookIdentity bool `json:"webhook_identity,omitempty"`
}

type ports struct {
	API       int `json:"api"`
	Etcd      int `json:"etcd"`
	EtcdPeer  int `json:"etcd_peer"`
	Manager   int `json:"manager"`   // health of the controller manager
	Schedule  int `json:"scheduler"` // health of the scheduler
	S3        int `json:"s3"`
	Aggregate int `json:"aggregated"` // the aggregated API
}

// all lists every port, to choose and to avoid them.
func (p *ports) all() []*int {
	return []*int{&p.API, &p.Etcd, &p.EtcdPeer, &p.Manager, &p.Schedule, &p.S3, &p.Aggregate}
}

// clusterInfo is cluster.json: the contract with everything that uses a cluster.
type clusterInfo struct {
	Name             string `json:"name"`
	ID               string `json:"id"`
	Backend          string `json:"backend"`
	Version          string `json:"version"`
	Server           string `json:"server"`
	CAFile           string `json:"ca_file"`
	Kubeconfig       string `json:"kubeconfig"`
	Kubectl          string `json:"kubectl"`
	LogDir           string `json:"log_dir"`
	AuditLog         string `json:"audit_log,omitempty"`
	Node             bool   `json:"node"`
	NodeName         string `json:"node_name,omitempty"`
	HostIP           string `json:"host_ip"`                  // where the API server reaches processes of this host
	PodGatewayIP     string `json:"pod_gateway_ip,omitempty"` // where pods reach processes of this host
	PodCIDR          string `json:"pod_cidr,omitempty"`
	ServiceCIDR      string `json:"service_cidr,omitempty"`
	Image            string `json:"image,omitempty"` // a busybox image, imagePullPolicy Never
	ContainerdSocket string `json:"containerd_socket,omitempty"`
}

func (i *instance) path(parts ...string) string {
	return filepath.Join(append([]string{i.Dir}, parts...)...)
}
func (i *instance) address(third, fourth int) string {
	return fmt.Sprintf("10.%d.%d.%d", i.Block, third, fourth)
}

// The address plan inside the block: pods, services, and the link between host and node.
func (i *instance) podCIDR() string     { return i.address(0, 0) + "/24" }
func (i *instance) serviceCIDR() string { return i.address(64, 0) + "/22" }
func (i *instance) serviceIP() string   { return i.address(64, 1) }
func (i *instance) hostIP() string      { return i.address(128, 1) }
func (i *instance) nodeIP() string      { return i.address(128, 2) }

func (i *instance) nodeName() string { return i.Name + "-node" }
func (i *instance) link() string     { return "kst" + i.ID[:8] }
func (i *instance) cgroup() string   { return "kustody-" + i.ID }
func (i *instance) apiAddress() string { // the one address the API server listens on
	if i.Node {
		return i.hostIP()
	}
	return "127.0.0.1"
}
func (i *instance) server() string {
	return fmt.Sprintf("https://%s:%d", i.apiAddress(), i.Ports.API)
}

func (i *instance) save() error {
	if err := writeJSON(i.path(instanceFile), i, 0o600); err != nil {
		return err
	}
	return writeJSON(registryFile(i.Name), i, 0o600)
}

// create makes a new instance with everything two clusters must not share, and registers it.
func create(name, dir, backend, release string, node bool) (*instance, error) {
	root, err := clustersDir()
	if err != nil {
		return nil, err
	}
	if dir == "" {
		dir = filepath.Join(root, name)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if err := usableDir(dir); err != nil {
		return nil, err
	}
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		return nil, err
	}
	i := &instance{Name: name, ID: hex.EncodeToString(id), Dir: dir, Backend: backend, Release: release, Node: node}
	i.LogDir = i.path("logs", time.Now().UTC().Format("20060102T150405.000Z"))
	if err := os.MkdirAll(i.LogDir, 0o755); err != nil {
		return nil, err
	}
	held, err := lock("allocation")
	if err != nil {
		return nil, err
	}
	defer held.Close()
	others, err := otherInstances(name)
	if err != nil {
		return nil, err
	}
	if i.Block, err = freeBlock(others); err != nil {
		return nil, err
	}
	if err := i.choosePorts(others); err != nil {
		return nil, err
	}
	return i, i.save()
}

// usableDir refuses folders that the node could not see, and those of another cluster.
func usableDir(dir string) error {
	// The node has its own /run, /var/lib and /var/log (node_init.go).
	for _, hidden := range []string{"/run", "/var/run", "/var/lib", "/var/log", "/proc", "/sys", "/dev"} {
		if dir == hidden || strings.HasPrefix(dir, hidden+"/") {
			return fmt.Errorf("folder %s cannot be below %s", dir, hidden)
		}
	}
	// A unix socket's path has at most 107 bytes, and the API socket of containerd lies in the folder.
	if len(dir) > 85 {
		return fmt.Errorf("folder %s is too long (85 bytes at most): its sockets would not fit", dir)
	}
	if _, err := os.Stat(filepath.Join(dir, instanceFile)); err == nil {
		return fmt.Errorf("folder %s belongs to another cluster", dir)
	}
	return nil
}

func otherInstances(name string) ([]*instance, error) {
	names, err := registered()
	if err != nil {
		return nil, err
	}
	var others []*instance
	for _, one := range names {
		if one == name {
			continue
		}
		other, err := find(one)
		if err != nil {
			return nil, err
		}
		if other != nil {
			others = append(others, other)
		}
	}
	return others, nil
}

// writeJSON replaces a file in one step, so that a reader never sees half of it.
func writeJSON(path string, value any, mode os.FileMode) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, append(text, '\n'), mode)
}

func writeFile(path string, text []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temporary := path + ".new"
	if err := os.WriteFile(temporary, text, mode); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

func readJSON(path string, value any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, value)
}
