"""How the course is made: from a source to notebooks, their form, their runs, the syllabus."""
