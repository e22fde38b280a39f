package failback

// Move is what a step writes that was chosen before a verb came.
func (e *Engine) Move(id string, to Activity) error {
	return e.runs[id].change(func(c *record) { c.Status.Activity = to })
}
