//go:build e2e

package fleet

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// wire is a long cable between a host and its bridge: what goes in comes out
// some time later, in order, whole. The kernel's own (tc netem) is not in every
// kernel. It is in this process; if that ends, the host is cut off.
//
//	host – link ⇄ packet socket ⇄ wire ⇄ tap – bridge
type wire struct {
	link, bridge string
	near, far    *os.File // the link, the tap
	running      sync.WaitGroup
}

const (
	// largest is the largest frame: 64 KiB of segments that the kernel has not
	// cut up yet, and what is before them.
	largest = 1<<16 + 256
	// inFlight is how many frames a wire holds; more are lost, as on any wire.
	inFlight = 4096
	// offloads are what the kernel leaves undone in the frames that it gives us,
	// and does in those that it gets, as each has a header that says so.
	offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
)

// newWire plugs the link out of its bridge, and a wire in between.
func newWire(link string, delay time.Duration) (w *wire, err error) {
	bridge, err := bridgeOf(link)
	if err != nil {
		return nil, err
	}
	w = &wire{link: link, bridge: bridge}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("slow %s: %w", link, err), w.Close())
		}
	}()
	tap := fmt.Sprintf("ct%08x", rand.Uint32())
	if w.far, err = openTap(tap); err != nil {
		return w, err
	}
	if w.near, err = openLink(link); err != nil {
		return w, err
	}
	for _, args := range [][]string{
		{"link", "set", link, "nomaster"},
		{"link", "set", link, "arp", "off"}, // this machine would answer there itself
		{"link", "set", tap, "master", bridge, "up"},
	} {
		if err := ip(args...); err != nil {
			return w, err
		}
	}
	w.carry(w.near, w.far, delay)
	w.carry(w.far, w.near, delay)
	return w, nil
}

// Close plugs the link into its bridge again.
func (w *wire) Close() error {
	if w == nil {
		return nil
	}
	for _, f := range []*os.File{w.near, w.far} {
		if f != nil {
			f.Close() // which takes the tap away
		}
	}
	w.running.Wait()
	if _, err := net.InterfaceByName(w.link); err != nil {
		return nil // the host has gone, and its link
	}
	return errors.Join(ip("link", "set", w.link, "arp", "on"), ip("link", "set", w.link, "master", w.bridge))
}

// carry begins to bring frames from one end to the other, until it is closed.
func (w *wire) carry(from, to *os.File, delay time.Duration) {
	type frame struct {
		due  time.Time
		data []byte
	}
	frames := make(chan frame, inFlight)
	w.running.Go(func() {
		defer close(frames)
		buf := make([]byte, largest)
		for {
			n, err := from.Read(buf)
			switch {
			case err == nil:
			case errors.Is(err, syscall.ENETDOWN): // a socket says so once
				continue
			default:
				return
			}
			select {
			case frames <- frame{time.Now().Add(delay), append([]byte(nil), buf[:n]...)}:
			default:
			}
		}
	})
	w.running.Go(func() {
		for f := range frames {
			time.Sleep(time.Until(f.due))
			to.Write(f.data) // one that is refused is lost
		}
	})
}

// openTap makes a network device whose other end is a file.
func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("open /dev/net/tun", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads)
	}
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("make tap "+name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openLink makes a socket that has what comes in at a device, and puts out what
// is written.
func openLink(name string) (*os.File, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	every := uint16(unix.ETH_P_ALL)
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 16<<20),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: every<<8 | every>>8, Ifindex: link.Index}),
	)
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("packet socket at "+name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func ip(args ...string) error {
	_, err := output("here", nil, exec.Command("ip", args...))
	return err
}
