// What one cluster is on this machine: its name, folder, ports, address block and marker.
//
// Owns the registry (one small file per cluster in the cache), the locks, and the choice of what
// two clusters must not share. It starts and stops nothing.
package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
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
}

type ports struct {
	API      int `json:"api"`
	Etcd     int `json:"etcd"`
	EtcdPeer int `json:"etcd_peer"`
	S3       int `json:"s3"`
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

// freeBlock finds a 10.x.0.0/16 that no interface, route or other cluster uses.
func freeBlock(others []*instance) (int, error) {
	used, err := usedNetworks()
	if err != nil {
		return 0, err
	}
	taken := map[int]bool{}
	for _, other := range others {
		taken[other.Block] = true
	}
	// Starting anywhere keeps clusters of different caches apart, which do not see each other's plans.
	first, err := rand.Int(rand.Reader, big.NewInt(100))
	if err != nil {
		return 0, err
	}
	for offset := range int64(100) {
		block := 150 + int((first.Int64()+offset)%100)
		candidate := netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/16", block))
		free := !taken[block]
		for _, network := range used {
			free = free && !network.Overlaps(candidate)
		}
		if free {
			return block, nil
		}
	}
	return 0, errors.New("no free address block between 10.150.0.0/16 and 10.249.0.0/16")
}

// usedNetworks lists the destinations of the IPv4 routes, the default route aside.
func usedNetworks() ([]netip.Prefix, error) {
	text, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return nil, err
	}
	var found []netip.Prefix
	for _, line := range strings.Split(string(text), "\n")[1:] {
		fields := strings.Fields(line)
		if len(fields) < 8 {
			continue
		}
		destination, err1 := littleEndianAddress(fields[1])
		mask, err2 := littleEndianAddress(fields[7])
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("/proc/net/route: %q: %w", line, err)
		}
		ones, _ := net.IPMask(mask[:]).Size()
		if ones > 0 {
			found = append(found, netip.PrefixFrom(netip.AddrFrom4(destination), ones))
		}
	}
	return found, nil
}

func littleEndianAddress(text string) (address [4]byte, err error) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != 4 {
		return address, fmt.Errorf("not an address: %q", text)
	}
	return [4]byte{raw[3], raw[2], raw[1], raw[0]}, nil
}

// choosePorts picks ports that can be bound now. They lie below the range from which the kernel
// takes ports of outgoing connections, so that none is taken between here and the start.
func (i *instance) choosePorts(others []*instance) error {
	taken := map[int]bool{}
	for _, other := range others {
		for _, port := range []int{other.Ports.API, other.Ports.Etcd, other.Ports.EtcdPeer, other.Ports.S3} {
			taken[port] = true
		}
	}
	for _, target := range []*int{&i.Ports.API, &i.Ports.Etcd, &i.Ports.EtcdPeer, &i.Ports.S3} {
		for attempt := 0; *target == 0; attempt++ {
			if attempt == 1000 {
				return errors.New("no free port between 20000 and 32000")
			}
			offset, err := rand.Int(rand.Reader, big.NewInt(12000))
			if err != nil {
				return err
			}
			port := 20000 + int(offset.Int64())
			if !taken[port] && canBind(port) {
				taken[port], *target = true, port
			}
		}
	}
	return nil
}

func canBind(port int) bool {
	listener, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port))
	return err == nil && listener.Close() == nil
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
