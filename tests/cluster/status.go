// What runs, and what it said: the commands `status` and `logs`.
//
// Both only read. A cluster is whole when every component that it should have is alive.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// status is what `status -o json` prints for one cluster.
type status struct {
	clusterInfo
	Dir        string         `json:"dir"`
	Components map[string]int `json:"components"`
	Missing    []string       `json:"missing"`
}

func commandStatus(ctx context.Context, arguments []string) error {
	set := flags("status")
	name := set.String("name", "", "only this cluster; exit code 1 when it is not whole")
	output := set.String("o", "text", "text or json")
	if _, err := parse(set, arguments, 0); err != nil {
		return err
	}
	names := []string{*name}
	if *name == "" {
		var err error
		if names, err = registered(); err != nil {
			return err
		}
	}
	all := []status{}
	for _, one := range names {
		i, err := running(one)
		if err != nil {
			return err
		}
		all = append(all, i.status(ctx))
	}
	if *output == "json" {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		if *name != "" {
			return encoder.Encode(all[0])
		}
		return encoder.Encode(all)
	}
	for _, one := range all {
		one.print()
	}
	if *name != "" && len(all[0].Missing) > 0 {
		return fmt.Errorf("%s is not whole: %s", *name, strings.Join(all[0].Missing, ", "))
	}
	return nil
}

func (i *instance) status(ctx context.Context) status {
	info, err := i.info()
	found := status{clusterInfo: info, Dir: i.Dir, Missing: []string{}}
	if err != nil {
		found.Name, found.ID, found.Backend, found.LogDir = i.Name, i.ID, i.Backend, i.LogDir
		found.Missing = append(found.Missing, err.Error())
	}
	if i.Backend == backendKind {
		if err := kindHealth(ctx, i); err != nil {
			found.Missing = append(found.Missing, err.Error())
		}
		return found
	}
	if found.Components, err = components(i.ID); err != nil {
		found.Missing = append(found.Missing, err.Error())
	}
	for _, name := range i.expected() {
		if found.Components[name] == 0 {
			found.Missing = append(found.Missing, name)
		}
	}
	return found
}

func (s status) print() {
	fmt.Printf("%s: %s on %s, %s\n", s.Name, s.Version, s.Backend, s.Dir)
	names := make([]string, 0, len(s.Components))
	for name := range s.Components {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Printf("  %-24s pid %d\n", name, s.Components[name])
	}
	for _, name := range s.Missing {
		fmt.Printf("  %-24s MISSING\n", name)
	}
}

func commandLogs(_ context.Context, arguments []string) error {
	set := flags("logs")
	name := set.String("name", defaultName, "name of the cluster")
	dir := set.String("dir", "", "folder of the cluster, for one that is down")
	count := set.Int("lines", 40, "lines of each log")
	words, err := parse(set, arguments, 0)
	if err != nil || len(words) > 0 {
		return err
	}
	folder, err := latestLogs(*name, *dir)
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.log"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no logs in %s", folder)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		fmt.Printf("=== %s\n%s\n", file, lastLines(string(text), *count))
	}
	return nil
}

// latestLogs is the log folder of the running cluster, or of the last run.
func latestLogs(name, dir string) (string, error) {
	if i, err := find(name); err != nil || i != nil {
		if err != nil {
			return "", err
		}
		return i.LogDir, nil
	}
	if dir == "" {
		root, err := clustersDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(root, name)
	}
	runs, err := filepath.Glob(filepath.Join(dir, "logs", "*"))
	if err != nil || len(runs) == 0 {
		return "", fmt.Errorf("cluster %s has no logs in %s", name, dir)
	}
	sort.Strings(runs)
	return runs[len(runs)-1], nil
}
