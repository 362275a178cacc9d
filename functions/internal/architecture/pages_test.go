package architecture

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../../.."

var (
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading  = regexp.MustCompile(`(?m)^#+ (.*)$`)
	noSlug   = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	repoPath = regexp.MustCompile(`(?:^|[\s\x60"'(])(?:\./)?((?:functions|shared|infra|\.ci)/[\w./-]*\w)`)
	runbook  = regexp.MustCompile(`(?:^|[\s(])([a-z-]+\.md)`)
	testName = regexp.MustCompile(`\bTest[A-Z]\w+`)
)

// pages returns the paths of README, the pages in infra and the runbooks.
func pages(t *testing.T) []string {
	t.Helper()
	all := []string{"README.md"}
	for _, pattern := range []string{"infra/*.md", "infra/runbooks/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, page := range found {
			name, err := filepath.Rel(root, page)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, filepath.ToSlash(name))
		}
	}
	return all
}

func TestEachLinkOfAPageLeadsSomewhere(t *testing.T) {
	links := 0
	for _, page := range pages(t) {
		for _, match := range link.FindAllStringSubmatch(read(t, page), -1) {
			file, anchor, _ := strings.Cut(match[1], "#")
			if strings.Contains(match[1], "://") {
				continue
			}
			links++
			target := page
			if file != "" {
				target = path.Join(path.Dir(page), file)
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s links to %s, which is not there", page, match[1])
			} else if anchor != "" && !slices.Contains(anchors(read(t, target)), anchor) {
				t.Errorf("%s links to %s, and %s has no such heading", page, match[1], target)
			}
		}
	}
	if links < 20 {
		t.Errorf("only %d links were found", links)
	}
}

func TestEachPathInAPageExists(t *testing.T) {
	paths := 0
	exists := func(page, name, path string) {
		paths++
		if _, err := os.Stat(filepath.Join(root, path)); err != nil && path != "infra/config.env" { // not committed
			t.Errorf("%s names %s, which does not exist", page, name)
		}
	}
	for _, page := range pages(t) {
		text := read(t, page)
		for _, match := range repoPath.FindAllStringSubmatch(text, -1) {
			exists(page, match[1], match[1])
		}
		if path.Dir(page) == "infra/runbooks" {
			for _, match := range runbook.FindAllStringSubmatch(text, -1) {
				exists(page, match[1], "infra/runbooks/"+match[1])
			}
		}
	}
	if paths < 50 {
		t.Errorf("only %d paths were found", paths)
	}
}

func TestEachTestNamedInAPageExists(t *testing.T) {
	var tests strings.Builder
	for _, folder := range []string{"functions", "infra", "shared"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path) //nolint:gosec // G122: tests only read the repository
			tests.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, page := range pages(t) {
		for _, name := range testName.FindAllString(read(t, page), -1) {
			if !strings.Contains(tests.String(), "\nfunc "+name+"(") {
				t.Errorf("%s names %s, which does not exist", page, name)
			}
		}
	}
}

func read(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// anchors are what GitHub makes of a page's headings.
func anchors(text string) (all []string) {
	for _, match := range heading.FindAllStringSubmatch(text, -1) {
		slug := noSlug.ReplaceAllString(strings.ToLower(strings.TrimSpace(match[1])), "")
		all = append(all, strings.ReplaceAll(slug, " ", "-"))
	}
	return all
}
