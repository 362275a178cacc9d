package architecture

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	noSlug  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

func TestEveryLinkHasATarget(t *testing.T) {
	const root = "../../.."
	pages := []string{"README.md"}
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
			pages = append(pages, filepath.ToSlash(name))
		}
	}
	links := 0
	for _, page := range pages {
		for _, match := range link.FindAllStringSubmatch(read(t, root, page), -1) {
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
			} else if anchor != "" && !slices.Contains(anchors(read(t, root, target)), anchor) {
				t.Errorf("%s links to %s, and %s has no such heading", page, match[1], target)
			}
		}
	}
	if links < 20 {
		t.Errorf("only %d links were found", links)
	}
}

func read(t *testing.T, root, page string) string {
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
