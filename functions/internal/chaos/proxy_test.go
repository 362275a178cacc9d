package chaos_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// proxy is between the functions and the database, and injects the network's faults.
type proxy struct {
	listener net.Listener
	target   string
	links    sync.WaitGroup

	refusing      atomic.Bool   // new connections are refused
	pausedUntil   atomic.Int64  // Unix nanoseconds; nothing passes before this time
	slowed        atomic.Int64  // nanoseconds; the delay of each piece
	loseCommits   atomic.Int32  // the number of next commits that the proxy drops
	loseAnswers   atomic.Int32  // the number of next commits whose answers the proxy drops
	commitsLost   atomic.Int32  // the number of dropped commits
	answersLost   atomic.Int32  // the number of dropped answers
	beforeCommits hooks[func()] // called at each commit

	mu     sync.Mutex
	open   map[*link]bool
	errors map[uint16]int // the server's errors, by number
}

// link is one connection of a function.
type link struct {
	client, server net.Conn
	inTransaction  bool // according to the requests
	answerLost     atomic.Bool
}

func (l *link) cut() { _, _ = l.client.Close(), l.server.Close() }

func startProxy(target string) (*proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: listener, target: target, open: map[*link]bool{}, errors: map[uint16]int{}}
	p.links.Go(p.accept)
	return p, nil
}

func (p *proxy) port() int {
	address, ok := p.listener.Addr().(*net.TCPAddr)
	if !ok {
		return 0
	}
	return address.Port
}

func (p *proxy) close() {
	_ = p.listener.Close()
	p.cutAll()
	p.links.Wait()
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		if p.refusing.Load() {
			_ = client.Close()
			continue
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil { // the server is restarting
			_ = client.Close()
			continue
		}
		l := &link{client: client, server: server}
		p.mu.Lock()
		p.open[l] = true
		p.mu.Unlock()
		p.links.Go(func() { p.carry(l, client, server, p.request) })
		p.links.Go(func() { p.carry(l, server, client, p.answer) })
	}
}

// cutAll closes every connection.
func (p *proxy) cutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.open {
		l.cut()
	}
}

// errLost ends a link after a dropped commit or answer.
var errLost = errors.New("lost")

func (p *proxy) carry(l *link, from io.Reader, to io.Writer, pass func(*link, []byte) error) {
	defer func() {
		l.cut()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.open, l)
	}()
	piece := make([]byte, 64<<10)
	for {
		n, err := from.Read(piece)
		if err != nil {
			return
		}
		if err := pass(l, piece[:n]); err != nil {
			return
		}
		p.wait()
		if _, err := to.Write(piece[:n]); err != nil {
			return
		}
	}
}

func (p *proxy) wait() {
	time.Sleep(max(time.Duration(p.slowed.Load()), time.Until(time.Unix(0, p.pausedUntil.Load()))))
}

// commits reports whether a request commits: a COMMIT, or a write to this system's tables outside of a transaction. A
// request is a packet: four bytes of length and number, the byte of a query, and the query.
// https://mariadb.com/kb/en/com_query/
func (l *link) commits(piece []byte) bool {
	if len(piece) < 6 || piece[4] != 3 {
		return false
	}
	switch query := string(piece[5:min(len(piece), 60)]); query {
	case "START TRANSACTION":
		l.inTransaction = true
		return false
	case "COMMIT", "ROLLBACK":
		l.inTransaction = false
		return query == "COMMIT"
	default:
		return !l.inTransaction && (strings.HasPrefix(query, "UPDATE reconciliation_") || strings.HasPrefix(query, "INSERT INTO reconciliation_"))
	}
}

// The functions' setting of the lock wait timeout, and the proxy's replacement, which must have the same length.
var (
	functionsLockWait = []byte("innodb_lock_wait_timeout = 5")
	proxysLockWait    = []byte("innodb_lock_wait_timeout = 1")
)

// lockWait is how long a statement waits for a row behind the proxy.
const lockWait = time.Second

func (p *proxy) request(l *link, piece []byte) error {
	if at := bytes.Index(piece, functionsLockWait); at >= 0 {
		copy(piece[at:], proxysLockWait)
	}
	if !l.commits(piece) {
		return nil
	}
	call(&p.beforeCommits)
	switch {
	case takeOne(&p.loseCommits):
		p.commitsLost.Add(1)
		return errLost
	case takeOne(&p.loseAnswers):
		l.answerLost.Store(true)
	}
	return nil
}

func (p *proxy) answer(l *link, piece []byte) error {
	p.countError(piece)
	if l.answerLost.Load() {
		p.answersLost.Add(1)
		return errLost
	}
	return nil
}

// countError counts the answer if it is an error: a packet with 0xff and the error's number.
// https://mariadb.com/kb/en/err_packet/
func (p *proxy) countError(piece []byte) {
	if len(piece) < 7 || piece[4] != 0xff {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.errors[binary.LittleEndian.Uint16(piece[5:])]++
}

// errorCounts returns the counts of the errors by number.
func (p *proxy) errorCounts() map[uint16]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.errors)
}

// takeOne decrements the counter and returns true, or returns false if the counter is 0.
func takeOne(counter *atomic.Int32) bool {
	for {
		n := counter.Load()
		if n <= 0 {
			return false
		}
		if counter.CompareAndSwap(n, n-1) {
			return true
		}
	}
}
