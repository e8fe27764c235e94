"""distill.audio: music and sound, as waveforms, spectra and latents: networks, codecs, data, metrics and methods."""
