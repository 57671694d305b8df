// Builds the programs of a cluster from their Go modules and keeps them in the cache.
//
// Each set is pinned by a go.mod and go.sum that are checked in; the cache key is a hash of these,
// of the source and of the Go version, so a changed pin builds anew and an unchanged one costs
// nothing. It downloads only Go modules, through the ordinary go command.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"sort"
	"strings"
	"time"
)

const defaultRelease = "1.35"

// toolset is what a cluster of one Kubernetes release runs from.
type toolset struct {
	version   string // "v1.35.4"
	hyperkube string
	kubectl   string
	etcd      string
	runtime   string // folder of containerd, its shim and ctr; "" for the distribution's
}

// A target is one set of programs built from one module.
type target struct {
	name     string // of the folder in the cache, without its hash
	folder   string // of the module, relative to this program's source
	modfile  string // "" for go.mod
	ldflags  string
	packages map[string]string // program to package
}

// sourceDir is the folder of this program's source, where the pinned modules lie.
func sourceDir() (string, error) {
	dir := os.Getenv("KUSTODY_CLUSTER_SOURCE")
	if dir == "" {
		_, file, _, _ := runtime.Caller(0)
		dir = filepath.Dir(file)
	}
	if _, err := os.Stat(filepath.Join(dir, "kubernetes", "main.go")); err != nil {
		return "", fmt.Errorf("source of the pinned modules not found: set KUSTODY_CLUSTER_SOURCE to the folder tests/cluster: %w", err)
	}
	return dir, nil
}

// releases lists the Kubernetes releases that are pinned.
func releases() []string {
	source, err := sourceDir()
	if err != nil {
		return []string{defaultRelease}
	}
	files, err := filepath.Glob(filepath.Join(source, "kubernetes", "1.*.mod"))
	if err != nil || len(files) == 0 {
		return []string{defaultRelease}
	}
	var found []string
	for _, file := range files {
		found = append(found, strings.TrimSuffix(filepath.Base(file), ".mod"))
	}
	sort.Strings(found)
	return found
}

var kubernetesPin = regexp.MustCompile(`(?m)^\s*k8s\.io/kubernetes (v(\d+)\.(\d+)\.\d+\S*)`)

// kubernetesTarget reads the exact version from the release's module file.
func kubernetesTarget(source, release string) (target, string, error) {
	modfile := release + ".mod"
	text, err := os.ReadFile(filepath.Join(source, "kubernetes", modfile))
	if err != nil {
		return target{}, "", fmt.Errorf("kubernetes %q is not pinned here, only %s", release, strings.Join(releases(), ", "))
	}
	pin := kubernetesPin.FindSubmatch(text)
	if pin == nil {
		return target{}, "", fmt.Errorf("%s names no version of k8s.io/kubernetes", modfile)
	}
	version := string(pin[1])
	// A module build knows no version of its own; version skew checks and `kubectl version` need one.
	ldflags := "-s -w"
	for _, holder := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		ldflags += fmt.Sprintf(" -X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=%[3]s -X %[1]s.gitMinor=%[4]s", holder, version, pin[2], pin[3])
	}
	return target{
		name: "kubernetes-" + version, folder: "kubernetes", modfile: modfile, ldflags: ldflags,
		packages: map[string]string{"hyperkube": ".", "kubectl": "k8s.io/kubernetes/cmd/kubectl"},
	}, version, nil
}

// build returns the programs of a release, building what the cache does not have.
func build(ctx context.Context, release string) (toolset, error) {
	source, err := sourceDir()
	if err != nil {
		return toolset{}, err
	}
	kubernetes, version, err := kubernetesTarget(source, release)
	if err != nil {
		return toolset{}, err
	}
	first, err := kubernetes.build(ctx, source)
	if err != nil {
		return toolset{}, err
	}
	etcd := target{name: "etcd", folder: "etcd", ldflags: "-s -w", packages: map[string]string{"etcd": "go.etcd.io/etcd/server/v3"}}
	second, err := etcd.build(ctx, source)
	if err != nil {
		return toolset{}, err
	}
	return toolset{
		version:   version,
		hyperkube: filepath.Join(first, "hyperkube"),
		kubectl:   filepath.Join(first, "kubectl"),
		etcd:      filepath.Join(second, "etcd"),
	}, nil
}

// buildRuntime adds containerd 2 where the distribution's is too old: Kubernetes 1.35 is the last
// release that works with containerd 1.
func (t toolset) buildRuntime(ctx context.Context, release string) (toolset, error) {
	var minor int
	if _, err := fmt.Sscanf(release, "1.%d", &minor); err != nil {
		return t, fmt.Errorf("release %q: %w", release, err)
	}
	version, err := run(ctx, "containerd", "--version") // "containerd github.com/containerd/containerd 1.6.20~ds1 …"
	if err != nil {
		return t, err
	}
	if minor < 36 || !regexp.MustCompile(`containerd v?1\.`).MatchString(version) {
		return t, nil
	}
	source, err := sourceDir()
	if err != nil {
		return t, err
	}
	packages := map[string]string{}
	for _, program := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
		packages[program] = "github.com/containerd/containerd/v2/cmd/" + program
	}
	t.runtime, err = target{name: "containerd", folder: "containerd", ldflags: "-s -w", packages: packages}.build(ctx, source)
	return t, err
}

// buildVersitygw returns the path of the S3 server.
func buildVersitygw(ctx context.Context) (string, error) {
	source, err := sourceDir()
	if err != nil {
		return "", err
	}
	gateway := target{name: "versitygw", folder: "versitygw", ldflags: "-s -w",
		packages: map[string]string{"versitygw": "github.com/versity/versitygw/cmd/versitygw"}}
	dir, err := gateway.build(ctx, source)
	return filepath.Join(dir, "versitygw"), err
}

// build returns the cache folder that holds the target's programs.
func (t target) build(ctx context.Context, source string) (string, error) {
	root, err := cacheRoot()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(root, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	key, err := t.key(ctx, source)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(bin, t.name+"-"+key)
	if t.complete(dir) {
		return dir, nil
	}
	held, err := lockFile(filepath.Join(bin, "."+t.name+".lock"))
	if err != nil {
		return "", err
	}
	defer held.Close()
	if t.complete(dir) { // another process built it while this one waited
		return dir, nil
	}
	temporary, err := os.MkdirTemp(bin, ".building-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temporary)
	if err := t.compile(ctx, source, temporary); err != nil {
		return "", err
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := os.Chmod(temporary, 0o755); err != nil {
		return "", err
	}
	return dir, os.Rename(temporary, dir)
}

func (t target) complete(dir string) bool {
	for program := range t.packages {
		if _, err := os.Stat(filepath.Join(dir, program)); err != nil {
			return false
		}
	}
	return true
}

// key is the hash of everything that decides what the programs are.
func (t target) key(ctx context.Context, source string) (string, error) {
	command := exec.CommandContext(ctx, "go", "env", "GOVERSION", "GOOS", "GOARCH")
	command.Dir = filepath.Join(source, t.folder)
	command.Env = append(os.Environ(), "GOWORK=off")
	toolchain, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("go is needed to build the cluster: %w", err)
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n%s\n", toolchain, t.ldflags)
	module := t.modfile
	if module == "" {
		module = "go.mod"
	}
	for _, file := range []string{module, strings.TrimSuffix(module, ".mod") + ".sum", "main.go"} {
		text, err := os.ReadFile(filepath.Join(source, t.folder, file))
		if errors.Is(err, os.ErrNotExist) && file == "main.go" {
			continue // the module only names tools
		}
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%s %d\n%s\n", file, len(text), text)
	}
	return hex.EncodeToString(sum.Sum(nil))[:12], nil
}

func (t target) compile(ctx context.Context, source, into string) error {
	programs := make([]string, 0, len(t.packages))
	for program := range t.packages {
		programs = append(programs, program)
	}
	sort.Strings(programs)
	for _, program := range programs {
		arguments := []string{"go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", t.ldflags}
		if t.modfile != "" {
			arguments = append(arguments, "-modfile="+t.modfile)
		}
		arguments = append(arguments, "-o", filepath.Join(into, program), t.packages[program])
		if nice, err := exec.LookPath("nice"); err == nil {
			arguments = append([]string{nice}, arguments...)
		}
		command := exec.CommandContext(ctx, arguments[0], arguments[1:]...)
		command.Dir = filepath.Join(source, t.folder)
		command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
		// An interrupted go command ends its compilers before it ends.
		command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
		command.WaitDelay = 10 * time.Second
		finished := progress(fmt.Sprintf("building %s (%s)", program, t.name))
		output, err := command.CombinedOutput()
		finished()
		if err != nil {
			return fmt.Errorf("build %s: %w\n%s", program, err, lastLines(string(output), 30))
		}
	}
	return nil
}

// progress prints a line now, one every 15 seconds, and one when the returned function is called.
func progress(what string) func() {
	begin := time.Now()
	say("%s", what)
	done := make(chan struct{})
	go func() {
		ticker := time.NewTicker(15 * time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				say("%s: %s so far", what, time.Since(begin).Round(time.Second))
			}
		}
	}()
	return func() {
		close(done)
		say("%s: took %s", what, time.Since(begin).Round(100*time.Millisecond))
	}
}

// say prints progress to standard error: standard output is for results.
func say(format string, values ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", values...)
}

func lastLines(text string, count int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) > count {
		lines = lines[len(lines)-count:]
	}
	return strings.Join(lines, "\n")
}
