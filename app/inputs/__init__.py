"""What people have on their disks, turned into the archive that the service takes.

`recognise.read_input` sees by what is there which form an input has; each form, a file of this
package, gives its pictures with their labels; `packed` makes the archive of them while it is sent.
`objects.from_dataset` does the same for a dataset object of torchvision, timm or anybody else.
"""
