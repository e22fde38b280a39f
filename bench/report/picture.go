package report

import (
	"errors"
	"fmt"
	"image/color"
	"io/fs"
	"math"
	"os"
	"strconv"

	"github.com/haulback/haulback/bench/result"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// pictures are all there are, in the order of the page.
var pictures = []struct {
	name, title, text string
	draw              func(*result.Results) (*figure, error)
}{
	{
		"throughput", "Throughput",
		"Size of the disk by wall time, whatever had to be sent. Longer is better. Bars are medians, whiskers the slowest and the fastest run.",
		func(r *result.Results) (*figure, error) {
			return drawThroughput(r.At(result.OnDisk), "Throughput: size of the disk by wall time")
		},
	},
	{
		"memory", "Throughput in memory",
		"The same with both disks on a tmpfs, where no device is the limit.",
		func(r *result.Results) (*figure, error) {
			return drawThroughput(r.At(result.InMemory), "Throughput in memory: size of the disk by wall time")
		},
	},
	{
		"cpu", "CPU time",
		"CPU seconds of all processes of both ends for each GiB of disk. Shorter is better.",
		func(r *result.Results) (*figure, error) { return drawCPU(r.At(result.OnDisk)) },
	},
	{
		"wan", "Payload over a long link",
		"Bytes that became durable at the target each second, on the emulated link.",
		drawWAN,
	},
}

// The colours of Okabe and Ito that are used, and two greys.
var (
	blue       = color.NRGBA{0x00, 0x72, 0xb2, 0xff}
	orange     = color.NRGBA{0xe6, 0x9f, 0x00, 0xff}
	green      = color.NRGBA{0x00, 0x9e, 0x73, 0xff}
	vermillion = color.NRGBA{0xd5, 0x5e, 0x00, 0xff}
	purple     = color.NRGBA{0xcc, 0x79, 0xa7, 0xff}
	darkGrey   = color.NRGBA{0x60, 0x60, 0x60, 0xff}
	lightGrey  = color.NRGBA{0xbd, 0xbd, 0xbd, 0xff}
	gridGrey   = color.NRGBA{0xe0, 0xe0, 0xe0, 0xff}
)

const (
	width    = 8 * vg.Inch
	dpi      = 120
	fontSize = vg.Length(10)
)

// figure is plots below each other.
type figure struct {
	title  string
	panels []panel
	legend []entry
}

// panel is one plot with its height, all of it.
type panel struct {
	*plot.Plot
	height vg.Length
	indent vg.Length // room that the labels of the vertical axis take
}

// entry explains a colour.
type entry struct {
	label string
	fill  color.Color
}

const (
	titleHeight  = vg.Length(24)
	legendHeight = vg.Length(20)
)

func (f *figure) height() vg.Length {
	h := titleHeight
	if len(f.legend) > 0 {
		h += legendHeight
	}
	for _, p := range f.panels {
		h += p.height
	}
	return h
}

// save writes path.svg and path.png; of no figure it removes them.
func (f *figure) save(path string) error {
	if f == nil {
		for _, ext := range []string{".svg", ".png"} {
			if err := os.Remove(path + ext); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	}
	svg := vgsvg.New(width, f.height())
	f.draw(draw.New(svg))
	png := vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(width, f.height()), vgimg.UseDPI(dpi))}
	f.draw(draw.New(png))
	for ext, c := range map[string]vg.CanvasWriterTo{".svg": svg, ".png": png} {
		if err := save(path+ext, c); err != nil {
			return err
		}
	}
	return nil
}

func save(path string, c vg.CanvasWriterTo) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := c.WriteTo(out); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", path, err), out.Close())
	}
	return out.Close()
}

// draw lays the panels out so that their vertical axes stand below each other.
func (f *figure) draw(c draw.Canvas) {
	c.SetColor(color.White)
	c.Fill(c.Rectangle.Path())
	style := sans(fontSize+3, text.XLeft)
	top := c.Max.Y - 6
	c.FillText(style, vg.Point{X: c.Min.X + 8, Y: top - style.Height(f.title)}, f.title)
	var most vg.Length
	for _, p := range f.panels {
		most = max(most, p.indent)
	}
	y := c.Max.Y - titleHeight
	for _, p := range f.panels {
		area := draw.Canvas{Canvas: c.Canvas, Rectangle: vg.Rectangle{
			Min: vg.Point{X: c.Min.X + 8 + most - p.indent, Y: y - p.height},
			Max: vg.Point{X: c.Max.X - 14, Y: y - 10},
		}}
		p.Draw(area)
		y -= p.height
	}
	x := c.Min.X + 12
	style = sans(fontSize, text.XLeft)
	for _, e := range f.legend {
		box := vg.Rectangle{Min: vg.Point{X: x, Y: c.Min.Y + 6}, Max: vg.Point{X: x + 10, Y: c.Min.Y + 16}}
		c.SetColor(e.fill)
		c.Fill(box.Path())
		c.FillText(style, vg.Point{X: x + 15, Y: c.Min.Y + 7}, e.label)
		x += 15 + style.Width(e.label) + 22
	}
}

func sans(size vg.Length, x text.XAlignment) text.Style {
	font := plot.DefaultFont
	font.Variant, font.Size = "Sans", size
	return text.Style{Color: color.Black, Font: font, XAlign: x, YAlign: text.YBottom, Handler: plot.DefaultTextHandler}
}

// newPlot is an empty plot in the fonts of all.
func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = color.Transparent
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Title.TextStyle.Font.Variant, p.Title.TextStyle.Font.Size = "Sans", fontSize+1
	p.Title.Padding = 4
	p.X.Tick.Marker, p.Y.Tick.Marker = steps{}, steps{}
	p.Legend.Padding = 3
	p.Legend.TextStyle.Font.Variant, p.Legend.TextStyle.Font.Size = "Sans", fontSize
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Label.TextStyle.Font.Variant, a.Label.TextStyle.Font.Size = "Sans", fontSize
		a.Tick.Label.Font.Variant, a.Tick.Label.Font.Size = "Sans", fontSize
	}
	return p
}

// steps are about five labelled ticks at round numbers; those of the plot library
// may be two.
type steps struct{}

// Ticks implements plot.Ticker.
func (steps) Ticks(from, to float64) (ticks []plot.Tick) {
	step := math.Pow(10, math.Floor(math.Log10((to-from)/5)))
	for _, k := range []float64{1, 2, 5, 10} {
		if (to-from)/(step*k) <= 6 {
			step *= k
			break
		}
	}
	digits := max(0, int(-math.Floor(math.Log10(step)+1e-9)))
	// Adding 0 makes 0 of -0, whose label has a minus.
	for i := math.Ceil(from/step-1e-9) + 0; i*step <= to*(1+1e-9); i++ {
		ticks = append(ticks, plot.Tick{Value: i * step, Label: strconv.FormatFloat(i*step, 'f', digits, 64)})
	}
	return ticks
}
