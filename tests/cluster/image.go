// Images made on the spot, because no registry may be reachable: busybox for pods, and any
// executable of this host wrapped with the libraries it needs.
//
// Writes docker-archive tars, the one format that `ctr images import` and `kind load` both take.
// It pulls nothing.
package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// An entry is one file of an image.
type entry struct {
	name string
	mode int64
	link string // target, for a symbolic link
	body []byte
	dir  bool
}

// An image is one layer and how to start it.
type image struct {
	tag        string
	entries    []entry
	entrypoint []string
	command    []string
}

// writeTo writes the image as a docker-archive tar. The same content gives the same bytes.
func (m image) writeTo(path string) error {
	var layer bytes.Buffer
	if err := writeTar(&layer, m.entries); err != nil {
		return err
	}
	layerSum := fmt.Sprintf("%x", sha256.Sum256(layer.Bytes()))
	config, err := json.Marshal(object{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": object{"Env": []string{"PATH=/usr/local/bin:/usr/bin:/bin"}, "Entrypoint": m.entrypoint, "Cmd": m.command},
		"rootfs": object{"type": "layers", "diff_ids": []string{"sha256:" + layerSum}},
	})
	if err != nil {
		return err
	}
	configName := fmt.Sprintf("%x.json", sha256.Sum256(config))
	manifest, err := json.Marshal([]object{{"Config": configName, "RepoTags": []string{m.tag}, "Layers": []string{layerSum + "/layer.tar"}}})
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	err = writeTar(&archive, []entry{
		{name: configName, mode: 0o644, body: config},
		{name: layerSum + "/layer.tar", mode: 0o644, body: layer.Bytes()},
		{name: "manifest.json", mode: 0o644, body: manifest},
	})
	if err != nil {
		return err
	}
	return writeFile(path, archive.Bytes(), 0o644)
}

func writeTar(to io.Writer, entries []entry) error {
	writer := tar.NewWriter(to)
	for _, one := range entries {
		header := &tar.Header{Name: one.name, Mode: one.mode, Size: int64(len(one.body)), Typeflag: tar.TypeReg}
		if one.dir {
			header.Typeflag, header.Name = tar.TypeDir, one.name+"/"
		}
		if one.link != "" {
			header.Typeflag, header.Linkname = tar.TypeSymlink, one.link
		}
		if err := writer.WriteHeader(header); err != nil {
			return err
		}
		if _, err := writer.Write(one.body); err != nil {
			return err
		}
	}
	return writer.Close()
}

// base is what every image has: a user database and a writable /tmp.
func base() []entry {
	return []entry{
		{name: "etc", mode: 0o755, dir: true},
		{name: "tmp", mode: 0o1777, dir: true},
		{name: "etc/passwd", mode: 0o644, body: []byte("root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")},
		{name: "etc/group", mode: 0o644, body: []byte("root:x:0:\nnobody:x:65534:\n")},
	}
}

// tiny is local/tiny:1: busybox with all its applets, sleeping by default. It also serves as the
// sandbox image of the node.
func tiny(ctx context.Context) (image, error) {
	path, err := lookPath("busybox")
	if err != nil {
		return image{}, err
	}
	if libraries, err := libraries(path); err != nil || len(libraries) > 0 {
		return image{}, errors.Join(fmt.Errorf("%s is not statically linked: install busybox-static", path), err)
	}
	body, err := os.ReadFile(path)
	if err != nil {
		return image{}, err
	}
	applets, err := exec.CommandContext(ctx, path, "--list").Output()
	if err != nil {
		return image{}, fmt.Errorf("%s --list: %w", path, err)
	}
	entries := append(base(), entry{name: "bin", mode: 0o755, dir: true}, entry{name: "bin/busybox", mode: 0o755, body: body})
	for _, applet := range strings.Fields(string(applets)) {
		if applet != "busybox" { // the list names itself
			entries = append(entries, entry{name: "bin/" + applet, mode: 0o777, link: "busybox"})
		}
	}
	return image{tag: tinyImage, entries: entries, command: []string{"/bin/sleep", "2147483647"}}, nil
}

func (i *instance) loadTinyImage(ctx context.Context) error {
	made, err := tiny(ctx)
	if err != nil {
		return err
	}
	path := i.path("node", "tiny.tar")
	if err := made.writeTo(path); err != nil {
		return err
	}
	return loadImage(ctx, i, path)
}

// loadImage loads a docker-archive tar into the node.
func loadImage(ctx context.Context, i *instance, path string) error {
	if i.Backend == backendKind {
		return kindLoad(ctx, i, path)
	}
	if !i.Node {
		return fmt.Errorf("cluster %s has no node to load an image into", i.Name)
	}
	_, err := i.ctr(ctx, "images", "import", path)
	return err
}

// loadBinary wraps an executable with its shared libraries, at their own paths, and loads it.
func loadBinary(ctx context.Context, i *instance, path, tag string) error {
	name := filepath.Base(path)
	if tag == "" {
		tag = "local/" + name + ":dev"
	}
	body, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	needed, err := libraries(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	entries := base()
	for _, library := range needed {
		content, err := os.ReadFile(library)
		if err != nil {
			return err
		}
		entries = append(entries, entry{name: strings.TrimPrefix(library, "/"), mode: 0o755, body: content})
	}
	entries = append(entries, entry{name: "usr/bin/" + name, mode: 0o755, body: body})
	made := image{tag: tag, entries: entries, entrypoint: []string{"/usr/bin/" + name}}
	archive := i.path("node", "image-"+name+".tar")
	if err := made.writeTo(archive); err != nil {
		return err
	}
	if err := loadImage(ctx, i, archive); err != nil {
		return err
	}
	fmt.Println(tag)
	return nil
}

// libraryFolders are where the dynamic linker looks, in this order.
var libraryFolders = []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"}

// libraries lists the interpreter and every shared library that an executable needs, directly or
// through another; none for a static one.
func libraries(path string) ([]string, error) {
	var found []string
	seen := map[string]bool{}
	pending := []string{path}
	for len(pending) > 0 {
		interpreter, names, err := imports(pending[0])
		if err != nil {
			return nil, err
		}
		pending = pending[1:]
		if interpreter != "" && !seen[filepath.Base(interpreter)] {
			seen[filepath.Base(interpreter)] = true
			found = append(found, interpreter)
		}
		for _, name := range names {
			if seen[name] {
				continue
			}
			seen[name] = true
			library, err := findLibrary(name)
			if err != nil {
				return nil, err
			}
			found, pending = append(found, library), append(pending, library)
		}
	}
	return found, nil
}

func imports(path string) (interpreter string, names []string, err error) {
	file, err := elf.Open(path)
	if err != nil {
		return "", nil, err
	}
	defer file.Close()
	for _, program := range file.Progs {
		if program.Type == elf.PT_INTERP {
			text, err := io.ReadAll(program.Open())
			if err != nil {
				return "", nil, err
			}
			interpreter = string(bytes.TrimRight(text, "\x00"))
		}
	}
	names, err = file.ImportedLibraries()
	return interpreter, names, err
}

func findLibrary(name string) (string, error) {
	for _, folder := range libraryFolders {
		path := filepath.Join(folder, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("shared library %s not found", name)
}
