"""What shows that the methods of super-resolution work, measured on photographs never trained on."""
