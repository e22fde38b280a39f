package report

import (
	"fmt"
	"image/color"
	"slices"

	"github.com/haulback/haulback/bench/result"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// looks tell the lines of a picture apart by colour, mark and dashes: any one of
// them is enough.
var looks = []struct {
	color  color.Color
	shape  draw.GlyphDrawer
	dashes []vg.Length
}{
	{blue, draw.CircleGlyph{}, nil},
	{vermillion, draw.SquareGlyph{}, []vg.Length{vg.Points(6), vg.Points(3)}},
	{green, draw.TriangleGlyph{}, []vg.Length{vg.Points(2), vg.Points(2)}},
	{purple, draw.PyramidGlyph{}, []vg.Length{vg.Points(8), vg.Points(2), vg.Points(2), vg.Points(2)}},
	{orange, draw.CrossGlyph{}, []vg.Length{vg.Points(4), vg.Points(4)}},
	{darkGrey, draw.PlusGlyph{}, nil},
}

// drawWAN draws payload rate by loss, a line for each transport. Losses are far
// apart: each has a place, not a scale.
func drawWAN(r *result.Results) (*figure, error) {
	all := curve(r)
	if len(all) == 0 {
		return nil, nil
	}
	var losses []float64
	var names []string
	var link float64
	for i := range all {
		s := &all[i]
		if !slices.Contains(losses, lossOf(s)) {
			losses = append(losses, lossOf(s))
		}
		if !slices.Contains(names, s.Name()) {
			names = append(names, s.Name())
		}
		if share := s.Extra[result.ExtraLinkShare].Median; share > 0 {
			link = mbit(s.Extra[result.ExtraRate].Median) / share
		}
	}
	p := newPlot("", "packets lost on the way to the target", "payload, Mbit/s")
	grid := plotter.NewGrid()
	grid.Vertical.Width, grid.Horizontal.Color = 0, gridGrey
	p.Add(grid)
	for i, n := range names {
		var points struct {
			plotter.XYs
			plotter.YErrors
		}
		for j := range all {
			if s := &all[j]; s.Name() == n {
				v := s.Extra[result.ExtraRate]
				points.XYs = append(points.XYs, plotter.XY{X: float64(slices.Index(losses, lossOf(s))), Y: mbit(v.Median)})
				points.YErrors = append(points.YErrors, struct{ Low, High float64 }{mbit(v.Median - v.Min), mbit(v.Max - v.Median)})
			}
		}
		line, marks, err := plotter.NewLinePoints(points.XYs)
		if err != nil {
			return nil, err
		}
		look := looks[i%len(looks)]
		line.Color, line.Width, line.Dashes = look.color, vg.Points(1.8), look.dashes
		marks.Color, marks.Shape, marks.Radius = look.color, look.shape, vg.Points(4)
		bars, err := plotter.NewYErrorBars(points)
		if err != nil {
			return nil, err
		}
		bars.Color, bars.Width = look.color, vg.Points(1)
		p.Add(bars, line, marks)
		p.Legend.Add(n, line, marks)
	}
	if link > 0 {
		for _, mark := range []struct {
			share float64
			label string
		}{{1, "the link"}, {0.75, "75 % of it (target)"}} {
			line, err := plotter.NewLine(plotter.XYs{{X: -0.3, Y: link * mark.share}, {X: float64(len(losses)) - 0.7, Y: link * mark.share}})
			if err != nil {
				return nil, err
			}
			line.Color, line.Width = darkGrey, vg.Points(0.8)
			if mark.share < 1 {
				line.Dashes = []vg.Length{vg.Points(1), vg.Points(2)}
			}
			p.Add(line)
			p.Legend.Add(mark.label, line)
		}
	}
	ticks := make([]string, len(losses))
	for i, l := range losses {
		ticks[i] = fmt.Sprintf("%g %%", l*100)
	}
	p.NominalX(ticks...)
	p.X.Min, p.X.Max, p.Y.Min = -0.3, float64(len(losses))-0.7, 0
	p.Y.Max = max(p.Y.Max, link) * 1.04
	p.Legend.Left, p.Legend.YOffs, p.Legend.XOffs = true, vg.Points(8), vg.Points(8)
	p.Legend.ThumbnailWidth = vg.Points(30)
	title := "Payload over an emulated long link"
	for _, i := range r.Images {
		if i.Case == all[0].Case && i.Text != "" {
			title = "Payload over an emulated link: " + until(i.Text, ';')
		}
	}
	return &figure{title: title, panels: []panel{{Plot: p, height: 4.2 * vg.Inch}}}, nil
}

// until is s up to the first byte b.
func until(s string, b byte) string {
	if i := slices.Index([]byte(s), b); i >= 0 {
		return s[:i]
	}
	return s
}
