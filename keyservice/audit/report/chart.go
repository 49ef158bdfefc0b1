package report

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// The sizes of a chart, in units of its own, which are pixels where the page is as wide as it gets.
const (
	chartWidth  = 1040
	chartLeft   = 56 // for the numbers at the axis
	chartTop    = 10
	chartBottom = 22 // for the times
	barGap      = 1.5
)

// Chart is bars over time.
type Chart struct {
	Title, Note   string
	Width, Height int
	// Left, Right, Base and Below are where the axes begin and end, and the times stand.
	Left, Right, Base, Below float64
	Bars                     []Bar
	Lines                    []Line
	Times                    []Label
	Legend                   []Series
}

// Bar is a part of a period's bar.
type Bar struct {
	X, Y, Width, Height float64
	Class, Hint         string
}

// Line is one across the chart, with a number at it.
type Line struct {
	Y    float64
	Text string
}

// Label is a text below the chart.
type Label struct {
	X      float64
	Text   string
	Anchor string
}

// Series is something that bars show.
type Series struct {
	Name, Class string
	of          func(*Period) int
}

// newChart draws series, one on top of the other.
func newChart(title, note string, height int, periods []Period, series ...Series) Chart {
	c := Chart{Title: title, Note: note, Width: chartWidth, Height: height, Left: chartLeft, Right: chartWidth, Below: float64(height) - 4}
	c.Base = float64(height - chartBottom)
	if len(series) > 1 {
		c.Legend = series
	}
	most := 0
	for i := range periods {
		sum := 0
		for _, s := range series {
			sum += s.of(&periods[i])
		}
		most = max(most, sum)
	}
	top, step := scale(most)
	up := (c.Base - chartTop) / float64(top)
	for n := 0; n <= top; n += step {
		c.Lines = append(c.Lines, Line{c.Base - float64(n)*up, number(n)})
	}
	if len(periods) == 0 {
		return c
	}
	wide := (c.Right - c.Left) / float64(len(periods))
	for i := range periods {
		p := &periods[i]
		y := c.Base
		for _, s := range series {
			n := s.of(p)
			if n == 0 {
				continue
			}
			high := math.Max(float64(n)*up, 1) // what is there is seen
			y -= high
			c.Bars = append(c.Bars, Bar{
				X: c.Left + float64(i)*wide, Y: y, Width: math.Max(wide-barGap, 1), Height: high, Class: s.Class,
				Hint: fmt.Sprintf("%s %s, %s to %s", number(n), s.Name, p.From.Format("Mon 2 Jan 15:04"), p.To.Format("15:04")),
			})
		}
	}
	c.Times = times(periods, c.Left, wide)
	return c
}

// scale is how high a chart goes, and in what steps.
func scale(most int) (top, step int) {
	for power := 1; ; power *= 10 {
		for _, factor := range []int{1, 2, 5} {
			step = power * factor
			if most <= 4*step {
				return max(1, (most+step-1)/step) * step, step
			}
		}
	}
}

// times are labels for some periods, in a form that says what is new.
func times(periods []Period, left, wide float64) (labels []Label) {
	whole := periods[len(periods)-1].To.Sub(periods[0].From)
	step := lengths[len(lengths)-1]
	for _, l := range slices.Concat(lengths, []time.Duration{2 * day, 14 * day}) {
		if l < step && whole <= mostTimes*l {
			step = l
		}
	}
	var last time.Time
	for i := range periods {
		at := periods[i].From
		if !last.IsZero() && at.Sub(last) < step-time.Hour || step <= day && !startOf(at, step).Equal(at) { // days have 23 hours at times
			continue
		}
		text := at.Format("15:04")
		if last.IsZero() || at.YearDay() != last.YearDay() {
			text = at.Format("2 Jan")
			if step < day && at.Hour()+at.Minute() > 0 {
				text = at.Format("2 Jan 15:04")
			}
		}
		last = at
		if len(periods)-i < len(periods)/(2*mostTimes) { // it would stand beyond the chart's end
			break
		}
		labels = append(labels, Label{left + float64(i)*wide, text, "start"})
	}
	return labels
}

const (
	day = 24 * time.Hour
	// mostTimes is how many times there is room for below a chart.
	mostTimes = 9
)

// number is one for people: with thin spaces between thousands.
func number(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "\u2009" + text[i:]
	}
	return text
}
