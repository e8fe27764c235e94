"""Methods for scenes."""
