package report

import (
	"image/color"

	"github.com/haulback/haulback/bench/result"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
)

// bar is one peer in one case.
type bar struct {
	label string
	value result.Spread
	fill  color.Color
}

const (
	barWidth = vg.Length(13)
	barPitch = vg.Length(19)
	// room of a panel beside its bars: title, ticks, label of the axis
	panelRoom = vg.Length(72)
)

func drawThroughput(r *result.Results, title string) (*figure, error) {
	return drawBars(r, title, "GiB of disk per second (longer is better)", func(s *result.Summary) result.Spread {
		if s.Wall.Min == 0 {
			return result.Spread{}
		}
		size := float64(s.Image) / gib
		return result.Spread{Median: size / s.Wall.Median, Min: size / s.Wall.Max, Max: size / s.Wall.Min}
	})
}

func drawCPU(r *result.Results) (*figure, error) {
	return drawBars(r, "CPU time of both ends", "CPU seconds per GiB of disk (shorter is better)", func(s *result.Summary) result.Spread {
		size := float64(s.Image) / gib
		if size == 0 {
			return result.Spread{}
		}
		return result.Spread{Median: s.CPU.Median / size, Min: s.CPU.Min / size, Max: s.CPU.Max / size}
	})
}

// drawBars makes a panel for each case that pictures have; value of zero is left out.
func drawBars(r *result.Results, title, axis string, value func(*result.Summary) result.Spread) (*figure, error) {
	f := &figure{title: title, legend: []entry{{"haulback", blue}, {"peer, encrypted", darkGrey}, {"peer, not encrypted, or a limit", lightGrey}}}
	for _, h := range headings {
		if h.short == "" {
			continue
		}
		var bars []bar
		for _, s := range r.Fastest(h.c) {
			if v := value(&s); v.Median > 0 {
				bars = append(bars, bar{s.Name(), v, colourOf(r, &s)})
			}
		}
		if len(bars) == 0 {
			continue
		}
		p, err := barPanel(h.short, axis, bars)
		if err != nil {
			return nil, err
		}
		f.panels = append(f.panels, p)
	}
	if len(f.panels) == 0 {
		return nil, nil
	}
	return f, nil
}

func colourOf(r *result.Results, s *result.Summary) color.Color {
	peer := find(r, s)
	switch {
	case s.Peer == "haulback":
		return blue
	case peer != nil && peer.Encrypted:
		return darkGrey
	}
	return lightGrey
}

// barPanel draws bars from the top down, each with its label, whisker and number.
func barPanel(title, axis string, bars []bar) (panel, error) {
	p := newPlot(title, axis, "")
	grid := plotter.NewGrid()
	grid.Horizontal.Width, grid.Vertical.Color = 0, gridGrey
	p.Add(grid)
	n := len(bars)
	names := make([]string, n)
	var most float64
	whiskers := struct {
		plotter.XYs
		plotter.XErrors
	}{make(plotter.XYs, n), make(plotter.XErrors, n)}
	numbers := plotter.XYLabels{XYs: make(plotter.XYs, n), Labels: make([]string, n)}
	for i, b := range bars {
		y := float64(n - 1 - i)
		names[n-1-i] = b.label
		most = max(most, b.value.Max)
		c, err := plotter.NewBarChart(plotter.Values{b.value.Median}, barWidth)
		if err != nil {
			return panel{}, err
		}
		c.Horizontal, c.XMin, c.Color, c.LineStyle.Width = true, y, b.fill, 0
		p.Add(c)
		whiskers.XYs[i] = plotter.XY{X: b.value.Median, Y: y}
		whiskers.XErrors[i].Low, whiskers.XErrors[i].High = b.value.Median-b.value.Min, b.value.Max-b.value.Median
		numbers.XYs[i] = plotter.XY{X: b.value.Max, Y: y}
		numbers.Labels[i] = number(b.value.Median)
	}
	w, err := plotter.NewXErrorBars(whiskers)
	if err != nil {
		return panel{}, err
	}
	w.LineStyle.Width, w.CapWidth = vg.Points(1), 7
	l, err := plotter.NewLabels(numbers)
	if err != nil {
		return panel{}, err
	}
	for i := range l.TextStyle {
		l.TextStyle[i] = sans(fontSize-1, text.XLeft)
		l.TextStyle[i].YAlign = text.YCenter
	}
	l.Offset = vg.Point{X: 5}
	p.Add(w, l)
	p.NominalY(names...)
	p.X.Min, p.X.Max = 0, most*1.12
	p.Y.Min, p.Y.Max = -0.5, float64(n)-0.5
	var indent vg.Length
	for _, name := range names {
		indent = max(indent, p.Y.Tick.Label.Width(name))
	}
	return panel{Plot: p, height: panelRoom + vg.Length(n)*barPitch, indent: indent}, nil
}
