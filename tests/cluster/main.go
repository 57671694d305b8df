// Command cluster builds and boots a real Kubernetes cluster for tests and demos.
//
// This file owns the command line: one function per sub-command, flags, exit codes. What a
// command does lives in the file named for it (build.go, up.go, down.go, restart.go, s3.go, aggregated.go, image.go, kind.go).
// Everything is real Kubernetes; nothing is installed on the machine beyond the distribution
// packages that system-packages.sh lists, and `down` leaves nothing running behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sort"
	"strings"
	"syscall"
)

// A command is one sub-command of the program.
type command struct {
	help string
	run  func(ctx context.Context, arguments []string) error
}

// errUsage is returned after the usage text has been printed.
var errUsage = errors.New("wrong usage")

func commands() map[string]command {
	return map[string]command{
		"build":       {"build Kubernetes, kubectl, etcd and the S3 server into the cache", commandBuild},
		"up":          {"boot a cluster; does nothing when it is already up", commandUp},
		"down":        {"stop a cluster and remove everything it left on this machine", commandDown},
		"restart":     {"end parts of a running cluster, start them again, wait until they are healthy", commandRestart},
		"status":      {"say what runs", commandStatus},
		"load-image":  {"load a docker-archive tar into the cluster's node", commandLoadImage},
		"load-binary": {"wrap an executable into an image from scratch and load it", commandLoadBinary},
		"kubeconfig":  {"print the admin kubeconfig, or mint one for another user", commandKubeconfig},
		"logs":        {"print the last lines of the cluster's logs", commandLogs},
		"aggregated":  {"start or stop an aggregated API: aggregated up, aggregated down", commandAggregated},
		"s3":          {"start or stop the S3 server of the cluster: s3 up, s3 down", commandS3},
	}
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == nodeInitCommand {
		os.Exit(nodeInit(os.Args[2:]))
	}
	os.Exit(dispatch(os.Args[1:]))
}

func dispatch(arguments []string) int {
	table := commands()
	if len(arguments) == 0 || table[arguments[0]].run == nil {
		usage(table)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the program at once
	}()
	err := table[arguments[0]].run(ctx, arguments[1:])
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return 2
	}
	fmt.Fprintf(os.Stderr, "cluster %s: %v\n", arguments[0], err)
	return 1
}

func usage(table map[string]command) {
	names := make([]string, 0, len(table))
	for name := range table {
		names = append(names, name)
	}
	sort.Strings(names)
	fmt.Fprintln(os.Stderr, "usage: cluster COMMAND [flags]")
	for _, name := range names {
		fmt.Fprintf(os.Stderr, "  %-12s %s\n", name, table[name].help)
	}
}

// flags returns a flag set that reports errors instead of exiting.
func flags(name string) *flag.FlagSet {
	return flag.NewFlagSet("cluster "+name, flag.ContinueOnError)
}

// parse reads the arguments and refuses left-over words beyond what the command takes.
func parse(set *flag.FlagSet, arguments []string, words int) ([]string, error) {
	found, err := parseWords(set, arguments)
	if err != nil {
		return nil, err
	}
	if len(found) != words {
		fmt.Fprintf(os.Stderr, "%s takes %d word(s) besides its flags, got %q\n", set.Name(), words, found)
		set.Usage()
		return nil, errUsage
	}
	return found, nil
}

// parseWords reads flags and any number of words, in any order.
func parseWords(set *flag.FlagSet, arguments []string) ([]string, error) {
	var found []string
	for {
		if err := set.Parse(arguments); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, errUsage // the flag package has already said what is wrong
		}
		if set.NArg() == 0 {
			return found, nil
		}
		found = append(found, set.Arg(0))
		arguments = set.Args()[1:]
	}
}

func commandBuild(ctx context.Context, arguments []string) error {
	set := flags("build")
	release := set.String("kubernetes", defaultRelease, "Kubernetes release: "+strings.Join(releases(), ", "))
	if _, err := parse(set, arguments, 0); err != nil {
		return err
	}
	tools, err := build(ctx, *release)
	if err != nil {
		return err
	}
	gateway, err := buildVersitygw(ctx)
	if err != nil {
		return err
	}
	if _, err := lookPath("containerd"); err == nil {
		if tools, err = tools.buildRuntime(ctx, *release); err != nil {
			return err
		}
	}
	for _, path := range []string{tools.hyperkube, tools.kubectl, tools.etcd, gateway, tools.runtime} {
		if path != "" {
			fmt.Println(path)
		}
	}
	return nil
}

func commandUp(ctx context.Context, arguments []string) error {
	set := flags("up")
	var o upOptions
	set.StringVar(&o.name, "name", defaultName, "name of the cluster; clusters of different names run side by side")
	set.StringVar(&o.dir, "dir", "", "folder for its state and logs (default: in the cache, by name)")
	set.StringVar(&o.release, "kubernetes", defaultRelease, "Kubernetes release: "+strings.Join(releases(), ", "))
	set.BoolVar(&o.controlPlaneOnly, "control-plane-only", false, "no node, hence no pods, and no root needed")
	set.StringVar(&o.backend, "backend", defaultBackend(), "auto, kind or processes; default from KUSTODY_CLUSTER_BACKEND")
	set.BoolVar(&o.webhookIdentity, "webhook-identity", false, "the API server presents a client certificate to admission webhooks")
	set.BoolVar(&o.withS3, "with-s3", false, "start the S3 server too")
	set.Func("api-server-flag", "one more flag for kube-apiserver, for instance --v=4; repeatable", func(value string) error {
		o.apiServerFlags = append(o.apiServerFlags, value)
		return nil
	})
	if _, err := parse(set, arguments, 0); err != nil {
		return err
	}
	return up(ctx, o)
}

func commandDown(_ context.Context, arguments []string) error {
	set := flags("down")
	name := set.String("name", defaultName, "name of the cluster")
	all := set.Bool("all", false, "every cluster of this user")
	if _, err := parse(set, arguments, 0); err != nil {
		return err
	}
	if !*all {
		return down(*name)
	}
	names, err := registered()
	if err != nil {
		return err
	}
	var failures []error
	for _, one := range names {
		failures = append(failures, down(one))
	}
	return errors.Join(failures...)
}

func commandRestart(ctx context.Context, arguments []string) error {
	set := flags("restart")
	name := set.String("name", defaultName, "name of the cluster")
	together := set.Bool("together", false, "end all of them before the first is started again, as a power cut would")
	parts, err := parseWords(set, arguments)
	if err != nil {
		return err
	}
	return restart(ctx, *name, parts, *together)
}

func commandLoadImage(ctx context.Context, arguments []string) error {
	set := flags("load-image")
	name := set.String("name", defaultName, "name of the cluster")
	words, err := parse(set, arguments, 1)
	if err != nil {
		return err
	}
	i, err := running(*name)
	if err != nil {
		return err
	}
	return loadImage(ctx, i, words[0])
}

func commandLoadBinary(ctx context.Context, arguments []string) error {
	set := flags("load-binary")
	name := set.String("name", defaultName, "name of the cluster")
	tag := set.String("image", "", "name of the image, for instance local/kustody:dev (default local/FILE:dev)")
	words, err := parse(set, arguments, 1)
	if err != nil {
		return err
	}
	i, err := running(*name)
	if err != nil {
		return err
	}
	return loadBinary(ctx, i, words[0], *tag)
}

func commandKubeconfig(_ context.Context, arguments []string) error {
	set := flags("kubeconfig")
	name := set.String("name", defaultName, "name of the cluster")
	user := set.String("user", "", "mint a client certificate for this user name instead of printing the admin kubeconfig")
	output := set.String("output", "", "write to this file (mode 0600) instead of standard output")
	var groups []string
	set.Func("group", "group of the minted user; repeatable", func(value string) error {
		groups = append(groups, value)
		return nil
	})
	if _, err := parse(set, arguments, 0); err != nil {
		return err
	}
	i, err := running(*name)
	if err != nil {
		return err
	}
	text, err := kubeconfigFor(i, *user, groups)
	if err != nil {
		return err
	}
	if *output != "" {
		return os.WriteFile(*output, text, 0o600)
	}
	_, err = os.Stdout.Write(text)
	return err
}

func commandS3(ctx context.Context, arguments []string) error {
	set := flags("s3")
	name := set.String("name", defaultName, "name of the cluster")
	words, err := parse(set, arguments, 1)
	if err != nil {
		return err
	}
	switch words[0] {
	case "up":
		return s3Up(ctx, *name)
	case "down":
		return s3Down(*name)
	}
	return fmt.Errorf("s3 takes up or down, got %q", words[0])
}
