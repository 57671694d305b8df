// Boots real clusters and checks what the README promises of them.
//
// Needs Linux and the Go module proxy or a filled cache; the tests with a node need root and say
// so when they cannot run. Each test uses its own cluster names and folders.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func boots(t *testing.T, o upOptions) *instance {
	t.Helper()
	o.release, o.backend = defaultRelease, backendProcesses
	t.Cleanup(func() {
		if err := down(o.name); err != nil {
			t.Error(err)
		}
	})
	if err := up(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	i, err := running(o.name)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("CANNOT RUN: a node needs root")
	}
}

// kubectl runs the cluster's own kubectl and returns what it printed.
func kubectl(t *testing.T, i *instance, arguments ...string) (string, error) {
	t.Helper()
	info, err := i.info()
	if err != nil {
		t.Fatal(err)
	}
	return run(t.Context(), info.Kubectl, append([]string{"--kubeconfig", info.Kubeconfig}, arguments...)...)
}

func mustKubectl(t *testing.T, i *instance, arguments ...string) string {
	t.Helper()
	output, err := kubectl(t, i, arguments...)
	if err != nil {
		t.Fatal(err)
	}
	return output
}

// eventually repeats a check until it passes.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func TestMain(m *testing.M) {
	// up starts the node's first process from its own executable, which here is the test binary.
	if len(os.Args) > 1 && os.Args[1] == nodeInitCommand {
		os.Exit(nodeInit(os.Args[2:]))
	}
	os.Exit(m.Run())
}

func TestTwoClustersRunSideBySide(t *testing.T) {
	needsRoot(t)
	base := os.Getpid()
	one := boots(t, upOptions{name: fmt.Sprintf("one-%d", base)})
	two := boots(t, upOptions{name: fmt.Sprintf("two-%d", base)})
	for _, i := range []*instance{one, two} {
		mustKubectl(t, i, "run", "web", "--image="+tinyImage, "--image-pull-policy=Never", "--labels=app=web", "--command", "--",
			"sh", "-c", "echo "+i.Name+" > /tmp/index.html; exec httpd -f -p 8080 -h /tmp")
		mustKubectl(t, i, "expose", "pod", "web", "--port=80", "--target-port=8080")
	}
	for _, i := range []*instance{one, two} {
		mustKubectl(t, i, "wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
		address := mustKubectl(t, i, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
		fetch := fmt.Sprintf(`printf "GET / HTTP/1.0\r\n\r\n" | nc -w 5 %s 80`, address)
		for from, get := range map[string]func() (string, error){
			"the host": func() (string, error) {
				return run(t.Context(), "bash", "-c", fmt.Sprintf(`exec 3<>/dev/tcp/%s/80; printf "GET / HTTP/1.0\r\n\r\n" >&3; cat <&3`, address))
			},
			"a pod": func() (string, error) { return kubectl(t, i, "exec", "web", "--", "sh", "-c", fetch) },
		} {
			eventually(t, "the Service of "+i.Name+" from "+from, func() error {
				answer, err := get()
				if err == nil && !strings.Contains(answer, i.Name) {
					err = fmt.Errorf("%q", answer)
				}
				return err
			})
		}
	}
	// Taking one down does not disturb the other.
	if err := down(one.Name); err != nil {
		t.Fatal(err)
	}
	if output := mustKubectl(t, two, "exec", "web", "--", "cat", "/tmp/index.html"); !strings.Contains(output, two.Name) {
		t.Errorf("exec in the other cluster printed %q", output)
	}
}

func TestAServiceAddressThatNobodyAnswersIsRefused(t *testing.T) {
	needsRoot(t)
	i := boots(t, upOptions{name: fmt.Sprintf("refuse-%d", os.Getpid())})
	begin := time.Now()
	connection, err := net.DialTimeout("tcp", i.address(67, 200)+":80", 5*time.Second)
	if err == nil {
		_ = connection.Close()
		t.Fatal("something answered")
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it was dropped instead of refused: %v after %s", err, took)
	}
}

func TestAPersonGetsTheirOwnIdentityAndNoMore(t *testing.T) {
	i := boots(t, upOptions{name: fmt.Sprintf("people-%d", os.Getpid()), controlPlaneOnly: true})
	text, err := kubeconfigFor(i, "alice@example.org", []string{"approvers", "on call"})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "alice.kubeconfig")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := i.info()
	if err != nil {
		t.Fatal(err)
	}
	who, err := run(t.Context(), info.Kubectl, "--kubeconfig", path, "auth", "whoami", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	for _, expected := range []string{`"alice@example.org"`, `"approvers"`, `"on call"`} {
		if !strings.Contains(who, expected) {
			t.Errorf("whoami lacks %s: %s", expected, who)
		}
	}
	if output, err := run(t.Context(), info.Kubectl, "--kubeconfig", path, "get", "secrets", "-A"); err == nil {
		t.Errorf("a person without any role reads secrets: %s", output)
	}
}

func TestUpTwiceKeepsTheCluster(t *testing.T) {
	o := upOptions{name: fmt.Sprintf("twice-%d", os.Getpid()), controlPlaneOnly: true}
	first := boots(t, o)
	second := boots(t, o)
	if first.ID != second.ID {
		t.Errorf("the second up replaced cluster %s by %s", first.ID, second.ID)
	}
	if err := kill(first.ID, func(one process) bool { return one.Component == "etcd" }); err != nil {
		t.Fatal(err)
	}
	if third := boots(t, o); third.ID == first.ID {
		t.Error("up kept a cluster without etcd")
	}
}

func TestTheKubeletRefusesStrangers(t *testing.T) {
	needsRoot(t)
	i := boots(t, upOptions{name: fmt.Sprintf("kubelet-%d", os.Getpid())})
	client, err := i.s3Client() // a client that trusts the cluster's authority and has no identity
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Get("https://" + i.nodeIP() + ":10250/pods")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != 401 {
		t.Errorf("the kubelet answers a stranger with %s", response.Status)
	}
}

func TestS3HasVersioningAndObjectLockAndRefusesStrangers(t *testing.T) {
	name := fmt.Sprintf("s3-%d", os.Getpid())
	t.Cleanup(func() {
		if err := s3Down(name); err != nil {
			t.Error(err)
		}
	})
	if err := s3Up(t.Context(), name); err != nil { // without a cluster
		t.Fatal(err)
	}
	i, err := running(name)
	if err != nil {
		t.Fatal(err)
	}
	var info s3Info
	if err := readJSON(i.path("s3.json"), &info); err != nil {
		t.Fatal(err)
	}
	stranger := info
	stranger.SecretKey = strings.Repeat("0", len(info.SecretKey))
	for _, one := range []struct {
		who      s3Info
		query    string
		code     int
		contains string
	}{
		{info, "object-lock=", 200, "<ObjectLockEnabled>Enabled"},
		{info, "versioning=", 200, "<Status>Enabled"},
		{stranger, "versioning=", 403, "SignatureDoesNotMatch"},
	} {
		code, body := s3Get(t, i, one.who, one.query)
		if code != one.code || !strings.Contains(body, one.contains) {
			t.Errorf("GET ?%s: %d %s, expected %d with %s", one.query, code, body, one.code, one.contains)
		}
	}
}

func s3Get(t *testing.T, i *instance, who s3Info, query string) (int, string) {
	t.Helper()
	client, err := i.s3Client()
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, who.Endpoint+"/"+who.Bucket+"?"+query, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	who.sign(request, time.Now())
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestAnExecutableOfThisHostRunsInAPod(t *testing.T) {
	needsRoot(t)
	i := boots(t, upOptions{name: fmt.Sprintf("binary-%d", os.Getpid())})
	// /bin/ls is linked against shared libraries, which must come along.
	if err := loadBinary(t.Context(), i, "/bin/ls", "local/ls:dev"); err != nil {
		t.Fatal(err)
	}
	mustKubectl(t, i, "run", "ls", "--image=local/ls:dev", "--image-pull-policy=Never", "--restart=Never", "--", "/usr/bin")
	eventually(t, "the output of the pod", func() error {
		output, err := kubectl(t, i, "logs", "ls")
		if err == nil && strings.TrimSpace(output) != "ls" {
			err = fmt.Errorf("%q", output)
		}
		return err
	})
}
