// What two clusters on one machine must not share: an address block and ports.
//
// Chosen by looking at what is in use now. The choice is made under the registry's lock, so that
// clusters of one cache also avoid each other's plans.
package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"strings"
)

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
		for _, port := range other.Ports.all() {
			taken[*port] = true
		}
	}
	for _, target := range i.Ports.all() {
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
