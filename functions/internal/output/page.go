package output

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/term"
	"golang.org/x/text/width"

	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

const (
	// narrowest and widest bound the columns that lines are wrapped at: below, only ids would fit, and
	// above, sentences are hard to read.
	narrowest, widest = 40, 110
	// deeper is how much more the rest of a wrapped line is indented.
	deeper = 2
	// labels is how wide the names of figures are.
	labels = 42
)

// Page is text for people. On a terminal its lines wrap at words, and the parts that need attention have a
// colour. In a file or a pipe each line stays whole and plain. The page cleans all text, because the text may
// come from anywhere.
type Page struct {
	to     io.Writer
	text   strings.Builder
	width  int // 0: lines stay whole
	colour bool
}

// NewPage is an empty page that [Page.Flush] writes to w.
func NewPage(w io.Writer) *Page {
	p := &Page{to: w}
	if file, ok := terminal(w); ok {
		p.width = min(max(terminalWidth(file), narrowest), widest)
		p.colour = takesColour(os.Getenv)
	}
	return p
}

// IsTerminal reports whether the file is a terminal.
func IsTerminal(file *os.File) bool {
	_, ok := terminal(file)
	return ok
}

// terminal returns the terminal that w is, if it is one.
func terminal(w any) (*os.File, bool) {
	file, ok := w.(*os.File)
	return file, ok && term.IsTerminal(int(file.Fd()))
}

// takesColour: https://no-color.org, and what terminals without any call themselves.
func takesColour(getenv func(string) string) bool {
	return getenv("NO_COLOR") == "" && getenv("TERM") != "dumb" && getenv("TERM") != ""
}

// Colour is one that a terminal can show.
type Colour string

// What colours are for.
const (
	Plain     Colour = ""
	Failed    Colour = "31" // red: an error
	Attention Colour = "33" // yellow: somebody has to decide
)

// Span is a part of a line in one colour.
type Span struct {
	colour Colour
	text   string
}

// Part is a part of a line, in a colour.
func Part(colour Colour, format string, args ...any) Span {
	return Span{colour, telemetry.Clean(fmt.Sprintf(format, args...))}
}

// Line writes a line. If it is wrapped, the rest is indented a little more.
func (p *Page) Line(indent int, format string, args ...any) {
	p.Parts(indent, indent+deeper, Part(Plain, format, args...))
}

// Lines writes each line of the text, as far in as it begins with blanks. A line after the first that is a command
// stays whole.
func (p *Page) Lines(text string) {
	first := true
	for line := range strings.Lines(text) {
		blanks, bare := blanksBefore(strings.TrimRight(line, "\n"))
		if !first && isCommand(bare) {
			p.Whole(len(blanks), bare)
		} else {
			p.Line(len(blanks), "%s", bare)
		}
		first = false
	}
}

// isCommand reports whether the line is a command of one of the two command lines.
func isCommand(line string) bool {
	return strings.HasPrefix(line, "reconcile ") || strings.HasPrefix(line, "local ") || line == "local" || strings.HasPrefix(line, "MAX_DOWNGRADES=")
}

// Whole writes a line that does not wrap: a command that is to be copied.
func (p *Page) Whole(indent int, text string) {
	p.text.WriteString(strings.Repeat(" ", indent) + telemetry.Clean(text) + "\n")
}

// Narrower reports whether the page goes to a terminal with fewer columns.
func (p *Page) Narrower(columns int) bool { return p.width > 0 && p.width < columns }

// WrapAt wraps the lines at this width where the page goes to no terminal.
func (p *Page) WrapAt(columns int) {
	if p.width == 0 {
		p.width = columns
	}
}

// Width returns the column at which lines are wrapped, or 0 if they stay whole.
func (p *Page) Width() int { return p.width }

// Paragraphs writes text as wrapped paragraphs; lines that begin with blanks stay separate.
func (p *Page) Paragraphs(text string) {
	var words []string
	end := func() {
		if len(words) > 0 {
			p.Parts(0, 0, Part(Plain, "%s", strings.Join(words, " ")))
		}
		words = nil
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		blanks, bare := blanksBefore(line)
		if bare != "" && blanks == "" {
			words = append(words, bare)
			continue
		}
		end()
		p.Parts(len(blanks), len(blanks), Part(Plain, "%s", bare))
	}
	end()
}

// Blank writes an empty line.
func (p *Page) Blank() { p.text.WriteString("\n") }

// Parts writes a line of parts that begins at the column indent; what does not fit continues in the next line at rest.
func (p *Page) Parts(indent, rest int, parts ...Span) {
	p.text.WriteString(strings.Repeat(" ", indent))
	column := indent
	for _, part := range parts {
		for _, word := range words(part.text) {
			blanks, bare := blanksBefore(word)
			if p.width > 0 && column+Columns(word) > p.width && column > rest {
				p.text.WriteString("\n" + strings.Repeat(" ", rest))
				column, blanks = rest, ""
			}
			p.text.WriteString(blanks + p.painted(part.colour, bare))
			column += len(blanks) + Columns(bare)
		}
	}
	p.text.WriteString("\n")
}

// Count writes a figure beside its name.
func (p *Page) Count(indent int, name string, n int, colour Colour) {
	if n == 0 {
		colour = Plain
	}
	p.Parts(indent, indent+deeper, Part(Plain, "%-*s ", labels-indent, name), Part(colour, "%7d", n))
}

// Figure writes a value beside its name.
func (p *Page) Figure(name, format string, args ...any) {
	const indent = 2
	p.Parts(indent, indent+deeper, Part(Plain, "%-*s ", labels-indent, name), Part(Plain, format, args...))
}

// Counts writes figures below their title, one a line, the largest first.
func Counts[K ~string](p *Page, title string, counts map[K]int, colour func(K) Colour) {
	if len(counts) == 0 {
		return
	}
	p.Line(2, "%s", title)
	names := slices.SortedFunc(maps.Keys(counts), func(a, b K) int {
		if counts[a] != counts[b] {
			return counts[b] - counts[a]
		}
		return strings.Compare(string(a), string(b))
	})
	for _, name := range names {
		p.Count(4, string(name), counts[name], colour(name))
	}
}

// Flush writes the page.
func (p *Page) Flush() error {
	_, err := io.WriteString(p.to, p.text.String())
	return err
}

func (p *Page) painted(colour Colour, text string) string {
	if !p.colour || colour == Plain || text == "" {
		return text
	}
	return "\x1b[" + string(colour) + "m" + text + "\x1b[0m"
}

// words divides the text into words, each with the blanks before it.
func words(text string) (all []string) {
	text = strings.ReplaceAll(text, "\n", " ")
	for text != "" {
		_, bare := blanksBefore(text)
		end := strings.IndexByte(bare, ' ')
		if end < 0 {
			return append(all, text)
		}
		end += len(text) - len(bare)
		all, text = append(all, text[:end]), text[end:]
	}
	return all
}

func blanksBefore(word string) (blanks, bare string) {
	bare = strings.TrimLeft(word, " ")
	return word[:len(word)-len(bare)], bare
}

// Columns is how many a terminal needs for the text.
func Columns(text string) (n int) {
	for _, r := range text {
		switch kind := width.LookupRune(r).Kind(); {
		case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		case kind == width.EastAsianWide, kind == width.EastAsianFullwidth:
			n += 2
		default:
			n++
		}
	}
	return n
}
